"""`BackgroundServerMixin`, in tests that a `python -m unittest` of their own runs."""

from __future__ import annotations

import re
import unittest
from typing import TYPE_CHECKING

import pytest

import daemonize
from tests.support import inner

if TYPE_CHECKING:
    from pathlib import Path

NOTE = re.compile(r"^server output: .*/echo\.py (\S+) \d+ \(pid \d+, port \d+\)$", re.MULTILINE)


def notes(said: str) -> list[str]:
    """The names of the servers whose output is noted, in order."""
    return NOTE.findall(said)


TESTS = """
class Tests(daemonize.BackgroundServerMixin, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lasting = cls.start_class_server(echo("lasting"))
        note(cls.lasting.pid)

    def setUp(self):
        self.server = self.start_server(echo("own"), term_timeout="2s")
        note(self.server.pid)

    def test_1_passes(self):
        tell(self.server, "passing")
        tell(self.lasting, "passing")

    def test_2_fails(self):
        self.assertEqual(noted("ended"), ["own"])
        tell(self.server, "failing")
        self.assertEqual(1, 2)

    def test_3_fails_with_both(self):
        tell(self.lasting, "both\\nof them")
        raise RuntimeError("broken")

class Without(daemonize.BackgroundServerMixin, unittest.TestCase):
    def test_fails_without_servers(self):
        self.assertEqual(noted("ended")[-1], "lasting")
        self.assertEqual(1, 2)
"""


def test_a_failure_has_what_the_servers_said(tmp_path: Path) -> None:
    """Below the exception, where unittest shows its notes; of a server of the class what it said during the test."""
    done = inner.run_unittest(tmp_path, TESTS)

    assert "Ran 4 tests" in done.said
    assert "FAILED (failures=2, errors=1)" in done.said
    assert notes(done.said) == ["own", "lasting", "own"]
    assert re.search(
        r"RuntimeError: broken\nserver output: .*\n  out 0: own serves\nerr: <empty>\nserver", done.said
    )
    assert re.search(
        r"lasting .*\n  out 0: told both\n  out 1: of them\n  err 0: on stderr both\n\n", done.said
    )
    assert re.search(
        r"AssertionError: 1 != 2\nserver output: .*\n  out 0: own serves\n  out 1: told failing\n", done.said
    )


def test_servers_end_with_their_test_or_their_class(tmp_path: Path) -> None:
    """Before the next one begins, whatever became of it."""
    inner.run_unittest(tmp_path, TESTS)

    assert inner.noted(tmp_path, "ended") == ["own", "own", "own", "lasting"]
    inner.assert_ended([int(pid) for pid in inner.noted(tmp_path)])


def test_under_pytest_it_is_the_same(tmp_path: Path) -> None:
    """Which shows notes as well."""
    done = inner.run(tmp_path, TESTS)

    assert "3 failed, 1 passed" in done.said
    assert re.findall(r"^E +server output: .*/echo\.py (\S+) ", done.said, re.MULTILINE) == [
        "own",
        "own",
        "lasting",
    ]


EVERYWHERE = """
class Base(daemonize.BackgroundServerMixin, unittest.TestCase):
    def start(self):
        return self.start_server(echo(self._testMethodName[5:]))

class Subtests(Base):
    def test_subtest(self):
        server = self.start()
        for word in ("one", "two"):
            with self.subTest(word):
                tell(server, word)
                self.assertEqual(word, "one")

class SetUp(Base):
    def setUp(self):
        self.start()
        raise RuntimeError("set up")

    def test_setup(self):
        pass

class TearDown(Base):
    def tearDown(self):
        raise RuntimeError("tear down")

    def test_teardown(self):
        self.start()

class Cleanup(Base):
    def test_cleanup(self):
        self.start()
        self.addCleanup(self.fail, "cleanup")

class Expected(Base):
    @unittest.expectedFailure
    def test_expected(self):
        self.start()
        self.fail("as expected")

    def test_skipped(self):
        self.start()
        self.skipTest("no reason")

class Async(daemonize.BackgroundServerMixin, unittest.IsolatedAsyncioTestCase):
    async def test_async(self):
        self.start_server(echo("async"))
        self.assertEqual(1, 2)

class Startless(Base):
    def test_1_crash(self):
        self.start()
        self.start_server(CRASH, port=0)
"""


def test_every_kind_of_failure_has_it(tmp_path: Path) -> None:
    """Subtests, failures before and after the test, and those of coroutines. A server that does not start tells itself."""
    done = inner.run_unittest(tmp_path, EVERYWHERE)

    assert sorted(notes(done.said)) == ["1_crash", "async", "cleanup", "setup", "subtest", "teardown"]
    assert "(failures=3, errors=3, skipped=1, expected failures=1)" in done.said
    assert "  out 1: told one\n  out 2: told two\n" in done.said
    assert done.said.count("out 0: no luck") == 1
    assert len(inner.noted(tmp_path, "ended")) == 8


BY_HAND = """
class Tests(daemonize.BackgroundServerMixin, unittest.TestCase):
    def test_it(self):
        tell(self.start_server(echo("by-hand")), "hello")
        self.assertEqual(1, 2)

class Stream(unittest.TestCase):
    def test_without_a_result(self):
        result = Tests("test_it").run()
        self.assertEqual(result.testsRun, 1)
        self.assertIn("told hello", result.failures[0][1])

    def test_with_one(self):
        given = unittest.TestResult()
        self.assertIs(Tests("test_it").run(given), given)
        self.assertIn("told hello", given.failures[0][1])

    def test_debug(self):
        test = Tests("test_it")
        with self.assertRaises(AssertionError):
            test.debug()
        test.doCleanups()

def load_tests(loader, tests, pattern):
    return loader.loadTestsFromTestCase(Stream)
"""


def test_tests_can_be_run_by_hand(tmp_path: Path) -> None:
    """With a result, without one, and by debug(), which has nothing to note in."""
    done = inner.run_unittest(tmp_path, BY_HAND)

    assert done.status == 0, done.said
    assert "Ran 3 tests" in done.said
    assert inner.noted(tmp_path, "ended") == ["by-hand"] * 3


def test_in_the_wrong_order_it_is_no_class() -> None:
    """After TestCase the mixin could not note anything: that is an error, and not silence."""
    with pytest.raises(TypeError, match="method resolution"):
        type("Tests", (unittest.TestCase, daemonize.BackgroundServerMixin), {})
