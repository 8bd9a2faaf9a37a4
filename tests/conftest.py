"""Every test runs under the guards of tests/support/guards.py."""

import pytest

pytest.register_assert_rewrite("tests.support")

pytest_plugins = ["tests.support.guards", "tests.support.fixtures"]
