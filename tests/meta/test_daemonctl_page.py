"""What daemonctl.1 and the README say about verbs, options, statuses, variables and keys is so, both ways."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from daemonize import errors
from daemonize.cli import control, overview
from daemonize.launcher import daemon, details
from daemonize.registry import private, record
from tests.support import cli, pages, procs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "man" / "daemonctl.1").read_text()
README = (ROOT / "README.md").read_text()

SECTIONS = [
    "NAME", "SYNOPSIS", "DESCRIPTION", "NAMES", "STATES", "VERBS", "WHAT IS RECORDED", "EXIT STATUS", "JSON",
    "ENVIRONMENT", "FILES", "SECURITY", "COMPLETION", "EXAMPLES", "SEE ALSO",
]  # fmt: skip
#: Verbs that begin a launch have all of its statuses.
LAUNCH = {"N, 128+N"}
#: Options that every command has, and no paragraph repeats.
COMMON = {"--help", "-h"}


def keys_of_page(page: str, verb: str) -> set[str]:
    """The keys that a verb prints with --json."""
    parts = re.split(r"^\.SS (.+)\n", pages.section(page, "JSON"), flags=re.MULTILINE)
    return {
        key
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
        if verb in title
        for key in pages.keys(text)
    }


def verbs_of_page(page: str) -> dict[str, set[str]]:
    """The verbs that the page documents, and the options of each."""
    parts = re.split(r"^\.SS (\w+)\n", pages.section(page, "VERBS"), flags=re.MULTILINE)
    return {verb: pages.options(text) for verb, text in zip(parts[1::2], parts[2::2], strict=True)}


def synopsis_of_page(page: str) -> dict[str, set[str]]:
    """The options in the line that each verb begins with."""
    parts = re.split(r"^\.SS (\w+)\n", pages.section(page, "VERBS"), flags=re.MULTILINE)
    heads = (text.partition("\n.PP\n")[0].replace("\\-", "-") for text in parts[2::2])
    return {
        verb: set(re.findall(r"(?<![\w-])--?[a-z]+", head))
        for verb, head in zip(parts[1::2], heads, strict=True)
    }


def real_verbs() -> dict[str, set[str]]:
    """Every verb, and its options by every name."""
    return {
        name: {option for found in verb.params if isinstance(found, click.Option) for option in found.opts}
        for name, verb in control.control.commands.items()
    }


def real_statuses() -> set[str]:
    """Every plain exit status that the errors have, and those of LSB."""
    numbers = {value for name, value in vars(errors).items() if name.startswith("STATUS_")}
    return {str(number) for number in {*numbers - {errors.STATUS_SIGNAL}, *control._STATUS.values()}} | LAUNCH


def real_variables() -> set[str]:
    """Every variable by which records and logs are found."""
    return set(re.findall(r"\.get\(b\"([A-Z_]+)\"", Path(private.__file__).read_text()))


def real_states() -> set[str]:
    """What a daemon can be."""
    return {daemon.RUNNING, daemon.STARTING, daemon.STOPPED, daemon.DEAD}


@pytest.fixture
def kept() -> Iterator[record.Record]:
    """The record of a daemon that runs."""
    report = cli.run("--json", "--name", "kept", "-r", "started", "sleep", "100").json
    yield record.Registry().read("kept")
    procs.stop(report["pid"])


def parsed(words: list[str]) -> None:
    """Raises click.UsageError for a command line that daemonctl would not take."""
    context = control.control.make_context("daemonctl", list(words))
    _, verb, rest = control.control.resolve_command(context, [*context._protected_args, *context.args])
    assert verb
    verb.make_context(verb.name, rest, parent=context)


def test_the_page_has_exactly_the_sections_that_a_reader_expects() -> None:
    """In the order of man-pages(7)."""
    assert pages.sections(PAGE) == SECTIONS


def test_the_page_documents_exactly_the_verbs_and_options_there_are() -> None:
    """No verb without its part, no option without its paragraph there, and none invented."""
    assert verbs_of_page(PAGE) == {verb: options - COMMON for verb, options in real_verbs().items()}


def test_the_line_of_a_verb_has_its_options() -> None:
    """Each by one of its names."""
    shown, real = synopsis_of_page(PAGE), real_verbs()

    for verb, command in control.control.commands.items():
        options = [found.opts for found in command.params if isinstance(found, click.Option)]
        assert all(shown[verb] & set(names) for names in options), verb
        assert shown[verb] <= real[verb], verb


def test_the_page_documents_exactly_the_statuses_there_are() -> None:
    """Those of the errors, of LSB, and of launches."""
    assert pages.statuses(PAGE) == real_statuses()


def test_the_page_documents_exactly_the_variables_there_are() -> None:
    """Those by which directories are found."""
    assert pages.variables(PAGE) == real_variables()


def test_the_page_documents_exactly_the_states_there_are() -> None:
    """All four."""
    assert set(pages.tags(PAGE, "STATES")) == real_states()


def test_the_page_documents_exactly_the_keys_of_json(kept: record.Record) -> None:
    """Those of a daemon that runs, and of one that is being started for the first time."""
    real = {*overview.facts(kept, daemon.RUNNING), *overview.of_launch("new", os.getpid())}

    assert keys_of_page(PAGE, "list") == keys_of_page(PAGE, "status") == real
    assert keys_of_page(PAGE, "show") == details.details(kept).keys() - kept.fields.keys()


def test_the_page_documents_exactly_the_facts_of_a_process(kept: record.Record) -> None:
    """Those that `show` has."""
    (facts,) = details.details(kept)["processes"]
    text = pages.section(PAGE, "JSON").partition('"\\fIprocesses\\fR"')[2].partition("\n.IP ")[0]

    assert {
        word for line in re.findall(r"^\.IR (.*)$", text, re.MULTILINE) for word in listed(line)
    } == facts.keys()


def listed(line: str) -> list[str]:
    """The names in a line of roff that is alternately italic and not."""
    return re.sub(r'"[^"]*"', " ", line).split()


def test_the_readme_shows_every_verb() -> None:
    """In the section that walks through them."""
    walk = README.partition("\n## Named daemons\n")[2].partition("\n## ")[0]
    shown = {words[0] for words in pages.command_lines(walk.replace("&& ", "\n"), "daemonctl")}

    assert real_verbs().keys() == shown


@pytest.mark.parametrize(
    "text",
    [pages.examples(PAGE), "\n".join(re.findall(r"^(?:    |\$ |> )(.*)$", README, re.MULTILINE))],
    ids=["page", "README"],
)
def test_every_command_line_is_one_that_daemonctl_takes(text: str) -> None:
    """Its verb exists, its options do, and it has what it needs."""
    lines = pages.command_lines(text.replace("&& ", "\n").replace("|| ", "\n"), "daemonctl")

    assert len(lines) > 4
    for words in lines:
        parsed(words)


@pytest.mark.parametrize(
    "line", ["stopp web", "stop --fast web", "stop", "signal web FOO", "wait web -t soon"]
)
def test_a_wrong_command_line_is_seen(line: str) -> None:
    """Negative control."""
    with pytest.raises((click.UsageError, errors.UsageError)):
        parsed(shlex.split(line))


def test_a_missing_and_an_invented_name_are_both_seen(kept: record.Record) -> None:
    """Negative control: the comparisons above read what is written, not what ought to be."""
    page = (
        PAGE.replace("\n.SS forget\n", "\n.SS remember\n")
        .replace("\\fB\\-\\-signal\\fR", "\\fB\\-\\-kill\\fR")
        .replace("\n\\fB75\\fR\n", "\n\\fB76\\fR\n")
        .replace("\n.B XDG_STATE_HOME\nWhere", "\n.B XDG_HOME\nWhere")
        .replace('"\\fIuptime\\fR"', '"\\fIup\\fR"')
        .replace("\n.TP\n.B dead\n", "\n.TP\n.B gone\n")
    )
    found, real = verbs_of_page(page), real_verbs()

    assert found.keys() ^ real.keys() == {"forget", "remember"}
    assert found["stop"] ^ real["stop"] == {"--signal", "--kill"} | COMMON & real["stop"]
    assert pages.statuses(page) ^ real_statuses() == {"75", "76"}
    assert pages.variables(page) ^ real_variables() == {"XDG_STATE_HOME", "XDG_HOME"}
    facts = overview.facts(kept, daemon.RUNNING)
    assert keys_of_page(page, "list") ^ facts.keys() == {"uptime", "up", "launch"}
    assert set(pages.tags(page, "STATES")) ^ real_states() == {"dead", "gone"}
