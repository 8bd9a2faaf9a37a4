"""The benchmarks: measured against the budgets, in pairs, within one run (see README.md beside this file).

Run it with the Python that has the wheel installed. It exits 0 whatever the verdicts are, since a noisy
neighbour must not fail a build, and 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from children import child_server, process_with_pipe
from controlling import Registered, reaped, stopped
from executing import tasks_per_second
from keeping import CYCLES, cycles, first_start, memory, taken_in_turn
from launching import (
    OPTION_SERVERS,
    Bench,
    CannotMeasureError,
    copied_by_cat,
    launch,
    launch_by_option,
    ready_in_foreground,
    relayed,
    run,
    seen_directly,
    seen_through,
)
from messages import (
    echoed_as_bytes_by_channel,
    echoed_as_bytes_by_pipe,
    echoed_by_channel,
    echoed_by_pipe,
    handed_over_bare,
    handed_over_by_channel,
    through_channel,
    through_pipe,
)
from paired import alternate, in_turn, quantile
from specs import SPECS, seen_by_loop, seen_by_mirakuru, seen_by_us
from tasks import bare, by_manager, by_multiprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GIGABYTE = 1_000_000_000
#: Milliseconds that a readiness spec may take: where the server tells us, and where we have to look.
TOLD, LOOKED = 2.0, 5.0
#: Milliseconds after the end of a server; daemons that there are records of.
STOPPED, MANY = 3.0, 500
LITTLE, RELAYED, MUCH = 1_000_000, GIGABYTE, 4 * GIGABYTE


@dataclass(frozen=True)
class Result:
    """One number with its budget, and the facts that it was made from."""

    row: int
    what: str
    unit: str
    budget: float
    measured: float
    at_most: bool = True
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Met or missed, and by how much of the budget."""
        share = (self.measured - self.budget) / self.budget
        met = share <= 0 if self.at_most else share >= 0
        return f"met, {abs(share):.0%} to spare" if met else f"missed by {abs(share):.0%}"

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        sign = "≤" if self.at_most else "≥"
        return (
            str(self.row),
            self.what,
            f"{sign} {self.budget:g} {self.unit}",
            f"{self.measured:.2f} {self.unit}",
            self.verdict,
        )


def whole_launch(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 1: a whole run of `daemonize` whose server is ready at once, against an empty Python program."""
    server = bench.at_once()
    pairs = alternate(
        rounds, partial(launch, bench, server), partial(run, bench, [sys.executable, "-c", "pass"])
    )
    yield Result(
        1,
        "whole launch, server ready at once",
        "x python -c pass",
        2.0,
        pairs.ratio,
        facts={
            "daemonize ms": 1000 * median(pairs.left),
            "python -c pass ms": 1000 * median(pairs.right),
            **pairs.spread,
        },
    )


def wrapper_gone(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 2: from the moment the server re-points its streams to the wrapper reaped by its caller."""
    with bench.page() as (page, path):
        pairs = alternate(
            rounds, partial(seen_through, bench, page, path), partial(seen_directly, bench, page, path)
        )
    yield Result(
        2,
        "server ready → wrapper gone (streams)",
        "ms",
        2.0,
        1000 * median(pairs.left),
        facts={
            "p90 ms": 1000 * quantile(pairs.left, 0.9),
            "smallest ms": 1000 * min(pairs.left),
            "largest ms": 1000 * max(pairs.left),
            "bare end of file on a pipe ms": 1000 * median(pairs.right),
            "pairs": rounds,
        },
    )


def relay(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 3: bytes per second against `cat` in the same place, and the wrapper's memory meanwhile."""
    with bench.page() as (page, path):

        def ours(*, to_pipe: bool) -> float:
            return relayed(bench, page, path, RELAYED, to_pipe=to_pipe).rate

        for place, to_pipe in (("a pipe", True), ("/dev/null", False)):
            cat = partial(copied_by_cat, bench, page, path, RELAYED, to_pipe=to_pipe)
            pairs = alternate(rounds, partial(ours, to_pipe=to_pipe), cat)
            yield Result(
                3,
                f"relay to {place}",
                "x cat",
                0.9,
                pairs.ratio,
                at_most=False,
                facts={
                    "daemonize GB/s": median(pairs.left) / GIGABYTE,
                    "cat GB/s": median(pairs.right) / GIGABYTE,
                    **pairs.spread,
                },
            )
        little, much = (relayed(bench, page, path, size, to_pipe=True).peak for size in (LITTLE, MUCH))
    yield Result(
        3,
        "wrapper's memory, 4 GB over 1 MB",
        "MB more",
        1.0,
        max(0, much - little) / 1e6,
        facts={"after 1 MB": little / 1e6, "after 4 GB": much / 1e6},
    )


def by_option(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 4: click commands with `--daemonize`, against the same commands in the foreground until they are ready."""
    for name, server in OPTION_SERVERS.items():
        ours, foreground = (
            partial(launch_by_option, bench, server),
            partial(ready_in_foreground, bench, server),
        )
        pairs = alternate(rounds, ours, foreground)
        yield Result(
            4,
            f"server --daemonize ({name})",
            "x its foreground",
            1.15,
            pairs.ratio,
            facts={
                "--daemonize ms": 1000 * median(pairs.left),
                "foreground ms": 1000 * median(pairs.right),
                **pairs.spread,
            },
        )


def specs_seen(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 5: from the moment the server does what its spec waits for to the wrapper reaped; others, on the same server."""
    with bench.page() as (page, path):
        ours = {way: partial(seen_by_us, bench, page, path, way) for way in SPECS}
        others = {
            "connect loop": partial(seen_by_loop, bench, page, path),
            "mirakuru": partial(seen_by_mirakuru, bench, page, path),
        }
        taken = in_turn(rounds, ours | others)
    beside = {f"{name} ms": 1000 * median(taken[name]) for name in others}
    for way in SPECS:
        yield Result(
            5,
            f"server ready → wrapper gone ({way})",
            "ms",
            TOLD if way in {"notify", "fd"} else LOOKED,
            1000 * median(taken[way]),
            facts={
                "p90 ms": 1000 * quantile(taken[way], 0.9),
                "smallest ms": 1000 * min(taken[way]),
                "largest ms": 1000 * max(taken[way]),
                **(beside if way == "port" else {}),
                "rounds": rounds,
            },
        )


def stop_returns(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 6: from a well-behaved server's last moment to `daemonctl stop` reaped, against its parent's reaping it."""
    with bench.page() as (page, path):
        pairs = alternate(rounds, partial(stopped, bench, page, path), partial(reaped, bench, page, path))
    yield Result(
        6,
        "server gone → daemonctl stop gone",
        "ms",
        STOPPED,
        1000 * median(pairs.left),
        facts={
            "lower quartile ms": 1000 * quantile(pairs.left, 0.25),
            "upper quartile ms": 1000 * quantile(pairs.left, 0.75),
            "p90 ms": 1000 * quantile(pairs.left, 0.9),
            "smallest ms": 1000 * min(pairs.left),
            "largest ms": 1000 * max(pairs.left),
            "reaped by its parent ms": 1000 * median(pairs.right),
            "pairs": rounds,
        },
    )


def many_daemons(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 7: `list --all` and `status` of 500 daemons, half of them dead, against the same of one."""
    with Registered(bench, MANY) as many, Registered(bench, 1) as one:
        for verb in ("list", "status"):
            pairs = alternate(rounds, partial(many.looked_at, verb), partial(one.looked_at, verb))
            budget = 2000 * median(pairs.right) + MANY
            yield Result(
                7,
                f"{verb} of {MANY} daemons",
                "ms (2 x one + 1 each)",
                round(budget),
                1000 * median(pairs.left),
                facts={"one ms": 1000 * median(pairs.right), **pairs.spread},
            )


def background_server(bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 8: `BackgroundServer` start and stop, over what the server itself takes; others, with the same server, in turn."""
    taken = taken_in_turn(bench, rounds)
    beyond = {name: one.beyond(taken["bare"]) for name, one in taken.items()}
    common = {
        "first start ms": first_start(bench),
        f"{CYCLES} starts and stops s": cycles(bench),
        **dict(zip(("keeper MB", "each further server MB"), memory(bench), strict=True)),
    }
    for index, what in enumerate(("start", "stop")):
        ours = beyond["ours"][index]
        yield Result(
            8,
            f"BackgroundServer {what}, over the server's own",
            "ms",
            3.0,
            median(ours),
            facts={
                "lower quartile ms": quantile(ours, 0.25),
                "upper quartile ms": quantile(ours, 0.75),
                "smallest ms": min(ours),
                "largest ms": max(ours),
                **{f"{name} ms": median(beyond[name][index]) for name in ("mirakuru", "xprocess")},
                "the server's own ms": median((taken["bare"].starts, taken["bare"].stops)[index]),
                "rounds": rounds,
                **(common if what == "start" else {}),
            },
        )


def messages(_bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 9: a `MessageChannel` against `multiprocessing.Pipe`, and against descriptors without any message."""
    sides = {
        "echo of a list": (echoed_by_channel, echoed_by_pipe, "x multiprocessing.Pipe", "trips/s"),
        "echo of 3 bytes": (
            echoed_as_bytes_by_channel,
            echoed_as_bytes_by_pipe,
            "x multiprocessing.Pipe",
            "trips/s",
        ),
        "messages of 1 MB": (through_channel, through_pipe, "x multiprocessing.Pipe", "MB/s"),
        "descriptors": (handed_over_by_channel, handed_over_bare, "x socket.send_fds", "per s"),
    }
    for what, (ours, other, unit, absolute) in sides.items():
        pairs = alternate(rounds, ours, other)
        yield Result(
            9,
            f"MessageChannel, {what}",
            unit,
            0.8 if what != "descriptors" else 0.5,
            pairs.ratio,
            at_most=False,
            facts={
                f"ours {absolute}": median(pairs.left),
                f"other {absolute}": median(pairs.right),
                **pairs.spread,
            },
        )


def children(_bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 10: a `ChildServer` from its start to its end, one question in between, against `multiprocessing.Process`."""
    pairs = alternate(rounds, child_server, process_with_pipe)
    yield Result(
        10,
        "ChildServer, start, echo, stop",
        "x multiprocessing.Process",
        0.8,
        pairs.ratio,
        at_most=False,
        facts={"ours per s": median(pairs.left), "other per s": median(pairs.right), **pairs.spread},
    )


def tasks_done(_bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 11: tasks of a `ProcessManager`, one after the other, against fork and wait, and `multiprocessing.Process`."""
    for other, name, budget in (
        (bare, "bare fork and wait", 0.8),
        (by_multiprocessing, "multiprocessing.Process", 1.2),
    ):
        pairs = alternate(rounds, by_manager, other)
        yield Result(
            11,
            "ProcessManager, a task that does nothing",
            f"x {name}",
            budget,
            pairs.ratio,
            at_most=False,
            facts={"ours per s": median(pairs.left), "other per s": median(pairs.right), **pairs.spread},
        )


def executed(_bench: Bench, rounds: int) -> Iterator[Result]:
    """Row 12: tasks of a `ForkExecutor`, against pools whose processes are used once, and one whose are kept."""
    for ours, other, name, budget in (
        ("ours", "spawn", "one task each, spawn", 5.0),
        ("ours", "forkserver", "one task each, forkserver", 2.0),
        ("ours", "warm", "kept", 0.02),
        ("ours, large", "warm, large", "kept", 5.0),
    ):
        pairs = alternate(rounds, partial(tasks_per_second, ours), partial(tasks_per_second, other))
        what = "looks at 100 MB" if "large" in ours else "does nothing"
        yield Result(
            12,
            f"ForkExecutor, a task that {what}",
            f"x ProcessPoolExecutor ({name})",
            budget,
            pairs.ratio,
            at_most=False,
            facts={"ours per s": median(pairs.left), "other per s": median(pairs.right), **pairs.spread},
        )


ROWS: dict[int, tuple[Callable[[Bench, int], Iterator[Result]], int]] = {
    1: (whole_launch, 300),
    2: (wrapper_gone, 150),
    3: (relay, 21),
    4: (by_option, 100),
    5: (specs_seen, 60),
    6: (stop_returns, 60),
    7: (many_daemons, 10),
    8: (background_server, 60),
    9: (messages, 41),
    10: (children, 41),
    11: (tasks_done, 41),
    12: (executed, 11),
}


def main() -> int:
    """Measure what was asked for, print it, and say with the status whether all of it could be measured."""
    options = parse()
    gc.disable()
    results: list[Result] = []
    refused: list[str] = []
    print(machine(), file=sys.stderr)
    try:
        with Bench.open() as bench:
            for row in options.rows:
                measure, rounds = ROWS[row]
                print(f"measuring row {row} ...", file=sys.stderr, flush=True)
                try:
                    results.extend(measure(bench, options.rounds or rounds))
                except (CannotMeasureError, OSError) as error:
                    refused.append(f"row {row}: {error}")
    except CannotMeasureError as error:
        refused.append(str(error))
    if options.json:
        measured = [asdict(result) | {"verdict": result.verdict} for result in results]
        print(json.dumps({"machine": machine(), "results": measured, "refused": refused}))
    else:
        show(results)
    for reason in refused:
        print(f"bench: could not be measured: {reason}", file=sys.stderr)
    return 1 if refused else 0


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Measure daemonize against its budgets.")
    parser.add_argument(
        "--rows", type=rows, default=list(ROWS), metavar="N,N", help="which rows (default: all)"
    )
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help="pairs per measurement (default: each row's own)"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of the table")
    return parser.parse_args()


def rows(text: str) -> list[int]:
    """The rows named by `1,3`."""
    numbers = [int(number) for number in text.split(",")]
    if unknown := [number for number in numbers if number not in ROWS]:
        raise argparse.ArgumentTypeError(f"no row {unknown[0]}; there are {', '.join(map(str, ROWS))}")
    return numbers


def positive(text: str) -> int:
    """A number of pairs."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least one pair is needed")
    return number


def machine() -> str:
    """One line about where the numbers come from."""
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}"
    return f"Python {platform.python_version()}, Linux {platform.release()}, {load}"


def show(results: list[Result]) -> None:
    """Print the table, then the facts behind each line of it; both can be pasted into README.md."""
    head = ("row", "what", "budget", "measured", "verdict")
    lines = [head, *(result.cells() for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print()
    for result in results:
        facts = ", ".join(f"{name} {value:.4g}" for name, value in result.facts.items())
        print(f"- row {result.row}, {result.what}: {facts}")


if __name__ == "__main__":
    sys.exit(main())
