"""The text of a record: what is written comes back, and what nobody can have written is refused, with a reason."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemonize.daemon_errors import BadRecord
from daemonize.errors import UsageError
from daemonize.launcher.relaunch import request_of
from daemonize.launcher.request import Request
from daemonize.registry import content
from daemonize.registry.fields import FIELDS
from daemonize.registry.private import RefusedError
from daemonize.registry.record import Record, _read_json, parse, parse_head
from tests.support.registered import SAMPLE

TEXT = content.write(SAMPLE)
#: Whatever the kernel takes for an argument, a path or a variable, as Python has it.
WORDS = st.binary(min_size=1).filter(lambda data: b"\0" not in data).map(os.fsdecode)


def changed(**changes: object) -> bytes:
    """The text of the sample with changes, written by somebody who does not know what may be written."""
    return json.dumps({"version": 1, **SAMPLE, **changes}).encode() + b"\n"


def reason(text: bytes) -> str:
    """Why it is refused: one line."""
    with pytest.raises(RefusedError) as caught:
        parse(text)
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- what is written comes back --------------------------------------------------------------------------------------


def test_the_sample_is_a_record() -> None:
    """The control of all that is refused: unchanged, and written by another JSON writer, it is read."""
    assert parse(TEXT).fields == SAMPLE
    assert parse(changed()).fields == SAMPLE
    assert set(SAMPLE) == set(FIELDS)


def test_every_field_is_an_attribute_that_is_explained() -> None:
    """`Record` has each, and says what it is."""
    assert set(FIELDS) == set(Record.__annotations__)
    words = set(re.findall(r"\w+", Record.__doc__ or ""))
    assert set(FIELDS) <= words


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | WORDS,
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | WORDS, inner),
        max_leaves=20,
    )
)
def test_the_writer_writes_json(value: object) -> None:
    """Whatever a launch is made of: the parser of the standard library reads what was meant, from one line of ASCII."""
    text = content._encode(value)

    assert json.loads(text) == value
    assert text.isascii()
    assert "\n" not in text


@given(WORDS, WORDS)
def test_bytes_are_written_as_the_system_has_them_in_text(word: str, key: str) -> None:
    """Arguments, paths and variables that are bytes come back as the same bytes."""
    found = json.loads(content._encode({os.fsencode(key): (os.fsencode(word),)}))

    assert {os.fsencode(name): list(map(os.fsencode, words)) for name, words in found.items()} == {
        os.fsencode(key): [os.fsencode(word)]
    }


@pytest.mark.parametrize("value", [object(), 1j, b"".join], ids=str)
def test_what_is_no_value_is_a_mistake_of_ours(value: object) -> None:
    """It does not get into a record as something else."""
    with pytest.raises(TypeError):
        content._encode(value)


@given(
    pid=st.none() | st.integers(1, content.LAST_PID),
    start=st.integers(0, 1 << 62),
    boot_id=st.sampled_from(["", SAMPLE["boot_id"]]),
    explicit=st.booleans(),
)
def test_the_short_look_sees_what_the_long_one_sees(**first: Any) -> None:
    """A launch reads the first fields without a JSON parser."""
    text = content.write({**SAMPLE, **first})
    short, long = content.read_head(text), parse_head(text)

    assert short is not None
    assert {name: getattr(short, name) for name in first} == first
    assert {name: getattr(long, name) for name in first} == first


@given(
    st.dictionaries(
        st.text(),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | WORDS | st.none(),
    )
)
def test_the_scanner_alone_reads_what_json_reads(value: dict[str, object]) -> None:
    """What is written here, and what others write: as the parser of the standard library has it."""
    for text in (
        content._encode(value).encode() + b"\n",
        json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    ):
        assert _read_json(text) == json.loads(text)


def test_numbers_that_are_none_in_json() -> None:
    """They are read as `json` reads them."""
    text = b'{"a": [Infinity, -Infinity, 1e999, -0.0]}\n'

    assert _read_json(text) == json.loads(text)
    assert math.isnan(_read_json(b'{"a": NaN}\n')["a"])


def test_without_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python has no such thing, or another, json reads it and escapes its words."""
    monkeypatch.setitem(sys.modules, "_json", None)
    odd = {**SAMPLE, "process": '"\\\x07'}

    assert parse(content.write(odd)).fields == odd


# --- what is damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_truncated_record(length: int) -> None:
    """At whatever byte the disk was full: it is refused; without the last newline only, it is whole."""
    text = TEXT[:length]
    assert content.read_head(text) is None
    if length == len(TEXT) - 1:
        assert parse(text).fields == SAMPLE
    else:
        assert reason(text) == "it is damaged: it is no JSON"


@given(st.binary())
def test_garbage(data: bytes) -> None:
    """Nothing but a refusal comes of it."""
    reason(data)


@given(st.integers(0, len(TEXT) - 1), st.binary(max_size=3))
@settings(max_examples=500)
def test_a_few_bytes_of_it_are_others(at: int, data: bytes) -> None:
    """It is refused, or it is another record: no error of ours, in either look."""
    text = TEXT[:at] + data + TEXT[at + len(data) :]
    content.read_head(text)
    try:
        assert set(parse(text).fields) == set(FIELDS)
    except RefusedError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"version": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe{\0}\0",
        TEXT + TEXT,
        b'{"a":' * 200_000 + b"}\n",
        b'{"version": 1} {}\n',
    ],
    ids=[
        "deep list",
        "deep object",
        "deep and whole",
        "a long number",
        "UTF-16",
        "twice",
        "deep, with an end",
        "more than one object",
    ],
)
def test_json_that_is_a_trap(text: bytes) -> None:
    """No depth, no length and no encoding makes more of it than damage."""
    assert "it is damaged: " in reason(text)


@pytest.mark.parametrize(
    "text",
    [b"null", b"1", b'"x"', b"[]", b"{}", b'{"version": null}', b'{"version": "1"}', b'{"version": 1.0}'],
)
def test_json_that_is_no_record(text: bytes) -> None:
    """It says so."""
    assert reason(text) == "it is damaged: it is no record"


def test_a_record_of_a_newer_version() -> None:
    """It is not damaged, and says what it is, whatever else there is in it; the short look leaves it to the long one."""
    text = changed(version=2, pid="a name by now")

    assert reason(text) == "it was written by a newer daemonize (version 2 of records)"
    assert content.read_head(content.write(SAMPLE).replace(b'"version": 1', b'"version": 2')) is None


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_missing(field: str) -> None:
    """It is named."""
    fields = {name: value for name, value in SAMPLE.items() if name != field}
    assert reason(json.dumps({"version": 1, **fields}).encode()) == f"it is damaged: '{field}' is missing"


TEXTS = ("name", "boot_id", "process", "stdout", "stderr")
PATHS = ("pid_file", "notify_socket", "directory", "program")
NUMBERS = ("start", "since", "session", "drain_start")
PIDS = ("pid", "drain")
TIMES = ("began", "seconds", "stopped")
FLAGS = ("explicit", "ready", "foreground", "by_option", "pid_file_is_locked")
#: What no field may be, of those that are text, and so on.
WRONG: dict[tuple[str, ...], list[object]] = {
    TEXTS: [None, 1, True, [], {}, "a\0b", "\ud800"],
    PATHS: [1, True, [], {}, "a\0b", "\ud800"],
    NUMBERS: [None, "1", True, 1.0, -1, [], {}],
    PIDS: ["1", True, 1.0, 0, -1, 1 << 31, 10**30, [], {}],
    TIMES: ["1", True, -1, -0.1, 1e300, math.nan, math.inf, 10**400, [], {}],
    FLAGS: [None, 0, 1, "true", [], {}],
    ("token",): [None, 1, "", "=", "HOME=/root", "DAEMONIZE_ID", "DAEMONIZE_ID=", "DAEMONIZE_ID=63e336c2\n", "X" * 30],
    ("former",): [None, "x", {}, [1], ["HOME=/root"], ["DAEMONIZE_ID="], [[]]],
    ("listen",): [None, "x", {}, [1], [None], ["a\0b"], ["\ud800"]],
    ("found",): [None, "x", [], {"port": 1}, {"port": None}, {"a\0b": "x"}, {"x": "\ud800"}],
    ("settings",): [
        None, [], "x", {}, {"command": None}, {"command": []}, {"command": "sleep"}, {"command": [1]},
        {"command": ["sleep", "a\0b"]}, {"command": ["\ud800"]},
        *({"command": ["sleep"], "stop_timeout": bad} for bad in ("soon", None, True, -1, math.nan, 10**400, [])),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for fields, values in WRONG.items() for field in fields for value in values],
)
def test_a_field_that_cannot_be(field: str, value: object) -> None:
    """Of the wrong kind, or of the right one and no pid, no time, no path: it is named, and nobody trips over it later."""
    text = changed(**{field: value})

    assert reason(text) == f"it is damaged: '{field}' is not what it should be"


def test_no_field_is_left_out_of_the_test_above() -> None:
    """Each has a wrong value."""
    assert {field for fields in WRONG for field in fields} == set(FIELDS)


@pytest.mark.parametrize("pid", [b"0", b"2147483648", b"9" * 30, b"-1", b"1.0", b"01x", b"true"])
def test_a_short_look_at_a_pid_that_cannot_be(pid: bytes) -> None:
    """It leaves the record to the long look."""
    assert content.read_head(TEXT.replace(b'"pid": null', b'"pid": ' + pid)) is None


# --- from the record back to the launch ------------------------------------------------------------------------------

DURATIONS = st.floats(min_value=0.001, max_value=1e6) | st.integers(1, 10**6) | st.just(math.inf)
LIMITS = st.integers(-1, (1 << 63) - 1)
NAMES = WORDS.filter(lambda name: "=" not in name)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "ready": st.lists(st.text(min_size=1), min_size=1),
    "timeout": DURATIONS,
    "on_timeout": st.sampled_from(["stop", "leave"]),
    "stop_timeout": DURATIONS | st.just(0),
    "strict": st.booleans(),
    "directory": WORDS,
    "environment": st.dictionaries(NAMES, WORDS | st.just("")),
    "clear_environment": st.booleans(),
    "stdout": WORDS,
    "stderr": WORDS,
    "append": st.booleans(),
    "stdin": WORDS,
    "listen": st.lists(st.text()),
    "user": st.integers(0, (1 << 32) - 1) | st.text(min_size=1).filter(lambda text: "\0" not in text),
    "chroot": WORDS,
    "umask": st.integers(0, 0o777),
    "nice": st.integers(-40, 40),
    "core": st.booleans(),
    "limits": st.dictionaries(st.text(), LIMITS | st.tuples(LIMITS, st.none() | LIMITS)),
    "safe": st.booleans(),
    "pid_file": WORDS,
    "lock_file": WORDS,
    "name": st.just("web"),
    "log_rotate": st.tuples(st.integers(1, 1 << 62), st.integers(0, 1000)),
    "timestamps": st.booleans(),
}
#: Never part of a record that can be launched again.
UNREPEATABLE = {"keep_fds", "foreground", "watchdog"}


def test_every_keyword_is_tried() -> None:
    """None is added to Request without the property below."""
    assert OPTIONS.keys() | UNREPEATABLE == set(Request.__init__.__kwdefaults__ or {})


@given(st.lists(WORDS, min_size=1), st.fixed_dictionaries({}, optional=OPTIONS))
@settings(max_examples=150)
def test_a_launch_comes_back_from_its_record(command: list[str], options: dict[str, Any]) -> None:
    """Whatever was asked for, odd bytes included: the record of it makes the same request, and its record the same."""
    try:
        first = Request(command, **options)
    except UsageError:
        return  # -a without a file, the pid file as a log: there is no launch, and no record
    record = parse(content.write({**SAMPLE, "explicit": "name" in options, "settings": first.asked}))
    again = request_of(record)

    assert vars(again) == {**vars(first), "name": "web"}
    assert again.asked == {**first.asked, "name": "web"}


@pytest.mark.parametrize(
    "changes",
    [
        {"timeout": "soon"}, {"timeout": None, "ready": 1}, {"ready": [1]}, {"limits": {"nofile": "x"}}, {"limits": 3},
        {"environment": 3}, {"environment": {"A": 1}}, {"nothing": 1}, {"umask": "x"}, {"listen": [1]}, {"stdout": 5},
        {"stdout": ""}, {"directory": "a\0b"}, {"user": []}, {"timeout": 0}, {"command": ["a\0b"]}, {"limits": [[1]]},
        {"environment": {"\ud800": "x"}}, {"directory": "\ud800"}, {"on_timeout": 7}, {"on_timeout": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_request(changes: dict[str, object]) -> None:
    """A start says that the record is damaged, where it is, and what to do; a stop needs none of them."""
    record = Record({**SAMPLE, "settings": {**SAMPLE["settings"], **changes}})
    with pytest.raises(BadRecord, match="daemonctl forget web") as caught:
        request_of(record)

    assert str(caught.value).isprintable()
