"""Tables that must be complete, and the public names."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import pytest

import daemonize
from daemonize.errors import LaunchError
from daemonize.posix import identity

ORDERS = {
    "alone": "from daemonize import launch",
    "after-another": "from daemonize import Daemon, launch",
    "after-a-module": "import daemonize.launcher.daemon; launch = daemonize.launch",
    "as-attribute": "import daemonize; daemonize.launch; daemonize.Daemon; launch = daemonize.launch",
}


@pytest.mark.parametrize("statement", ORDERS.values(), ids=ORDERS)
def test_launch_is_the_function_in_whatever_order_names_are_loaded(statement: str) -> None:
    """Never a package of the same name that some other import put in its place."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}; print(callable(launch))"], check=True, stdout=subprocess.PIPE
    )

    assert done.stdout == b"True\n"


@pytest.mark.parametrize("name", daemonize.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    """Every public name can be loaded, is listed by dir(), and says what it is."""
    value = getattr(daemonize, name)

    assert inspect.getdoc(value)
    assert name in dir(daemonize)
    assert getattr(value, "__module__", value.__name__) == f"daemonize.{daemonize._MODULES[name]}"


def test_the_table_of_public_names_is_the_list_of_them() -> None:
    """Neither forgets one; the list is in order."""
    assert sorted(daemonize._MODULES) == daemonize.__all__ == sorted(daemonize.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="nonsense"):
        _ = daemonize.nonsense


def test_every_outcome_is_one_of_the_documented() -> None:
    """The word of each launch error is one that `--json` promises."""
    documented = {"ready", "exited", "not-executed", "timed-out", "cancelled", "lost", "stopped"}
    kinds = LaunchError.__subclasses__()

    assert kinds
    assert {kind.outcome for kind in kinds} <= documented
    assert all("describe" in vars(kind) for kind in kinds)


def test_the_standings_are_apart() -> None:
    """Five words, five meanings."""
    words = [identity.GONE, identity.EXITING, identity.ASLEEP, identity.BUSY, identity.UNKNOWN]

    assert len(set(words)) == 5


def test_every_module_says_why_it_exists() -> None:
    """And none does anything but define when it is imported."""
    for module in pkgutil.walk_packages([os.path.dirname(daemonize.__file__)], "daemonize."):
        if not module.name.endswith("__main__"):
            assert importlib.import_module(module.name).__doc__, module.name
