"""Readiness specs: every documented form is read, everything else is refused with the forms."""

from __future__ import annotations

import os

import pytest

from daemonize import readiness
from daemonize.errors import UsageError
from daemonize.readiness import FORMS, Probe, parse

GOOD = (
    "streams", "started", "exit", "alive:2s", "alive:500ms", "alive:1min 30s", "alive:0.25",
    "port", "port:1", "port:65535", "port:080", "port:localhost:80", "port:a-b.example:80", "port:127.0.0.1:80",
    "port:[::1]:80", "port:[fe80::1%lo]:80", "unix:a", "unix:/a b", "unix:@a", "unix:a:b", "unix:\udcff",
    "unix:" + "a" * 200,
    "notify", "fd:3", "fd:0042", "fdvar:X",
)  # fmt: skip
FOREVER = 1e9
#: An argument for every form that takes one; those that are not here take a duration.
ARGUMENTS = {"fd": "3", "port": "80", "http": "//localhost/", "https": "//localhost/"}


@pytest.mark.parametrize("spec", GOOD)
def test_a_spec_makes_its_probe(spec: str) -> None:
    """The probe knows its spec, has not held yet, and waits for nothing before exec."""
    probe = parse(spec)

    assert isinstance(probe, Probe)
    assert probe.spec == spec
    assert not probe.held
    assert probe.due is None


@pytest.mark.parametrize(
    "spec",
    ["", "stream", "Streams", " streams", "streams ", "streams:", "streams:x", "started:", "exit:0", "alive", ":", ":1s",
     "nonsense", "nonsense:1", "al\x1b[2Jive", "a\nb"],
)  # fmt: skip
def test_an_unknown_spec_lists_all_forms(spec: str) -> None:
    """The error names the spec and every form it could have had, in one line."""
    with pytest.raises(UsageError) as caught:
        parse(spec)

    line = str(caught.value)
    assert line.isprintable()
    for form, _, _ in FORMS:
        assert form in line


@pytest.mark.parametrize(
    "spec", ["alive:", "alive:soon", "alive:-1s", "alive:0", "alive:infinity", "alive:1s:2s"]
)
def test_a_wrong_argument_names_its_form(spec: str) -> None:
    """The error names the spec, its form, and what is wrong."""
    with pytest.raises(UsageError) as caught:
        parse(spec)

    assert f"'{spec}'" in str(caught.value)
    assert "alive:DURATION" in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    ["fd:", "fd:x", "fd:-1", "fd:0", "fd:2", "fd:3.5", "fd:3 ", "fd:٣", "fd:\0", "fd:\ud800", f"fd:{1 << 31}",
     "fd:" + "9" * 5000, "fdvar:", "fdvar:A=B", "fdvar:A\0", "fdvar:\ud800", "fdvar:DAEMONIZE_ID"],
)  # fmt: skip
def test_a_descriptor_that_cannot_be(spec: str) -> None:
    """A usage error in one line, and no traceback, whatever is given."""
    with pytest.raises(UsageError) as caught:
        parse(spec)

    assert str(caught.value).isprintable()
    assert f"of the form {'fd:N' if spec.startswith('fd:') else 'fdvar:NAME'}" in str(caught.value)


@pytest.mark.parametrize(
    "argument",
    ["", "0", "65536", "x", "-1", "+1", " 80", "80 ", "8_0", "\u0663", "1" * 5000, ":80", "[]:80", "[::1:80", "::1:80",
     "a b:80", "[127.0.0.1]:80", "[x:y]:80", "a/b:80", "a:80:90", "\0:80", "\ud800:80", "x\udcff:80", "caf\xe9:80",
     "[\ud800::]:80", "[\0::]:80", "80\0", "80\n"],
)  # fmt: skip
def test_a_wrong_port(argument: str) -> None:
    """One printable line, whatever it is."""
    with pytest.raises(UsageError) as caught:
        parse(f"port:{argument}")

    assert str(caught.value).isprintable()
    assert " is not a readiness spec of the form port:[HOST:]PORT: " in str(caught.value)


@pytest.mark.parametrize("argument", ["", "@", "a\0b", "@\0", "\ud800", "@" + "a" * 108])
def test_a_wrong_socket(argument: str) -> None:
    """One printable line, whatever it is."""
    with pytest.raises(UsageError) as caught:
        parse(f"unix:{argument}")

    assert str(caught.value).isprintable()
    assert " is not a readiness spec of the form unix:PATH: " in str(caught.value)


def test_the_table_and_the_files_agree() -> None:
    """Every form but the default has its probe in a file of its own, and no file is without a form."""
    files = {
        name.removesuffix(".py")
        for name in os.listdir(os.path.dirname(readiness.__file__))
        if name.endswith(".py")
    }

    assert files - {"__init__", "checker", "listening"} == {module for _, module, _ in FORMS if module}
    assert [form for form, module, _ in FORMS if not module] == ["streams"]
    for form, module, name in FORMS:
        word, _, argument = form.partition(":")
        place = __import__(f"daemonize.readiness.{module}", fromlist=(name,)) if module else readiness
        kind = getattr(place, name)
        assert issubclass(kind, Probe)
        assert isinstance(parse(f"{word}:{ARGUMENTS.get(word, '1s')}" if argument else word), kind)


@pytest.mark.parametrize(
    ("spec", "events"),
    [
        ("streams", {"streams_closed", "daemonized"}),
        ("started", {"executed"}),
        ("exit", {"daemonized"}),
        ("alive:1s", set()),
    ],
)
def test_what_each_probe_takes_for_ready(spec: str, events: set[str]) -> None:
    """Exactly the events of the table make a probe hold."""
    for event in ("executed", "streams_closed", "daemonized"):
        probe = parse(spec)
        getattr(probe, event)(*([0.0] if event == "executed" else []))

        assert probe.held == (event in events), event


def test_only_streams_needs_pipes() -> None:
    """Every other spec leaves the server its files."""
    assert [spec for spec in GOOD if parse(spec).uses_pipes] == ["streams"]


def test_alive_counts_from_exec() -> None:
    """It is due a duration after exec, holds then and not before, and wants no more looks afterwards."""
    probe = parse("alive:2s")
    probe.tick(FOREVER)
    assert not probe.held

    probe.executed(100.0)
    assert probe.due == 102.0
    probe.tick(101.999)
    assert not probe.held
    probe.tick(102.0)

    assert probe.held
    assert probe.due is None


def test_a_probe_does_nothing_by_default() -> None:
    """Hooks that a probe does not care for change nothing."""
    probe = Probe("spec", "argument")
    probe.executed(1.0)
    probe.streams_closed()
    probe.daemonized()
    probe.tick(2.0)

    assert (probe.spec, probe.argument, probe.held, probe.due) == ("spec", "argument", False, None)
