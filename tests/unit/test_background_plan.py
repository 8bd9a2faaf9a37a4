"""From what a `BackgroundServer` is asked for to a request: placeholders, ports, and what cannot be."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from daemonize.background.plan import Plan
from daemonize.background.ports import Port, is_free
from daemonize.errors import AlreadyRunning, UsageError
from daemonize.outcomes import Exited, NotExecuted
from tests.support import ports


def plan(command: Any = ("server",), **asked: Any) -> Plan:
    """With the usual settings."""
    given = {name: asked.pop(name, None) for name in ("port", "ready", "env", "listen")}
    return Plan(command, *given.values(), timeout=10.0, stop_timeout=1.0, **asked)


def words(made: Plan) -> list[str]:
    """The command of a request."""
    return [os.fsdecode(word) for word in made.request().command]


@pytest.mark.parametrize(
    ("command", "filled"),
    [
        (["server"], ["server"]),
        (["server", "--port={port}"], ["server", "--port=7001"]),
        (["server", "{port}", "{port}"], ["server", "7001", "7001"]),
        (["server", '{{"port": {port}}}'], ["server", '{"port": 7001}']),
        (["server", '{"a": {"b": 1}}'], ["server", '{"a": {"b": 1}}']),
        (["server", "{fd}", "{porte}", "{", "}"], ["server", "{fd}", "{porte}", "{", "}"]),
        ("server ${port} {port}", ["/bin/sh", "-c", "server ${port} 7001"]),
        ([b"server", "\udcff{port}"], ["server", "\udcff7001"]),
    ],
)
def test_the_port_that_is_given_is_filled_in(command: Any, filled: list[str]) -> None:
    """In every word; what is no placeholder of ours stays as it is. Text is for the shell."""
    assert words(plan(command, port=7001)) == filled


def test_ports_are_chosen_when_they_are_used() -> None:
    """Each number is another port, the same in command, environment and specs; they are held until they are given back."""
    made = plan(
        ["server", "{port}", "{port2}"],
        env={"A": "{port3}", "B": "x"},
        ready=["http://127.0.0.1:{port2}/", "log:a{2}"],
    )
    assert made.ports == []
    request = made.request()
    first, second = (int(word) for word in request.command[1:])
    third = int(request.environment[b"A"])

    assert len({first, second, third}) == 3
    assert (made.ports, made.command) == ([first, second, third], ["server", str(first), str(second)])
    assert request.environment[b"B"] == b"x"
    assert request.ready == (f"http://127.0.0.1:{second}/", "log:a{2}")
    made.release_ports()
    assert made.ports[0] == first  # also when it is over


@pytest.mark.parametrize(
    ("asked", "ready"),
    [
        ({}, ("port",)),
        ({"port": 7001}, ("port:7001",)),
        ({"command": ["server", "{port}"], "port": 7001}, ("port:7001",)),
        ({"port": 7001, "ready": "notify"}, ("notify",)),
        ({"ready": ["port:{port}", "log:x"], "port": 7001}, ("port:7001", "log:x")),
        ({"listen": "127.0.0.1:0", "ready": "http://127.0.0.1:{port}/"}, ("http://127.0.0.1:{port}/",)),
    ],
)
def test_what_is_waited_for(asked: dict[str, Any], ready: tuple[str, ...]) -> None:
    """Its port, or any port, unless it is said. What it is given to listen on is for the launch to fill in."""
    assert plan(**asked).request().ready == ready


def test_port_0_is_any() -> None:
    """As everywhere."""
    made = plan(port=0)
    request = made.request()

    assert request.ready == (f"port:{made.ports[0]}",)
    assert is_free(made.ports[0])
    made.release_ports()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"port": -1}, "65535"),
        ({"port": 65536}, "65535"),
        ({"port": True}, "65535"),
        ({"port": "80"}, "65535"),
        ({"listen": "127.0.0.1:0"}, "ready="),
        ({"listen": "127.0.0.1:0", "port": 80, "ready": "notify"}, "leave port away"),
        ({"ready": "prot"}, "prot"),
        ({"command": []}, "empty"),
        ({"command": ["server", 8000]}, "8000"),
        ({"command": None}, "a list of words"),
        ({"env": {"A": 1}}, "text"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"env": {"A=B": "x"}}, "A=B"),
        ({"command": ["server", "{port101}"]}, "{port101}"),
        ({"directory": ""}, "empty"),
    ],
)
def test_what_cannot_be_is_said_when_the_object_is_made(asked: dict[str, Any], said: str) -> None:
    """Not when it is started."""
    with pytest.raises(UsageError, match=said):
        plan(**asked)


# -- ports ---------------------------------------------------------------------------------------------------------------


def test_a_port_is_held_against_others_who_ask_here() -> None:
    """Until it is given back. None is of those that the kernel gives to whoever asks for any."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = (int(word) for word in file.read().split())
    taken = [Port() for _ in range(200)]
    numbers = {port.number for port in taken}

    assert len(numbers) == 200
    assert not any(low <= number <= high for number in numbers)
    for port in taken:
        port.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_port_that_somebody_has_is_not_free(address: str) -> None:
    """On whatever address of this machine; also when he does not listen."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as other:
        other.bind((address, 0))
        number = other.getsockname()[1]
        assert not is_free(number)
    assert is_free(number)


def test_what_a_connection_leaves_behind() -> None:
    """A port is not given away while the kernel remembers a connection; but that is nobody who has taken it."""
    number = ports.free_port()
    with socket.create_server(("127.0.0.1", number)) as server:
        client = socket.create_connection(("127.0.0.1", number))
        there, _ = server.accept()
        there.close()
        client.close()

    assert not is_free(number)
    assert is_free(number, again=True)


def test_a_lost_port() -> None:
    """A launch that failed is tried again if somebody else has the port that was free, and only then."""
    made = plan(["server", "{port}"])
    made.request()
    error = Exited(1 << 8)

    assert not made.has_lost_port(error)
    with socket.create_server(("127.0.0.1", made.ports[0])):
        assert made.has_lost_port(error)
        assert made.has_lost_port(AlreadyRunning("port", str(made.ports[0])))
        assert not made.has_lost_port(NotExecuted("exec", 2, "server"))
    made.release_ports()
    fixed = plan(port=ports.free_port())
    fixed.request()
    with socket.create_server(("127.0.0.1", fixed.ports[0])):
        assert not fixed.has_lost_port(error)  # that one was asked for
