"""Says in one line of JSON what it was started with, becomes ready (1 and 2 at /dev/null), and stays.

report_self.py [until=TRIGGER] [ARGUMENTS...]

pid ppid sid pgid uid gid groups nice umask cwd root argv environ, `descriptors` {number: target}, `stdin` (target),
`limits` {name: [soft, hard]}, `signals` {blocked, ignored, caught}: lists of numbers. Python itself ignores SIGPIPE
and SIGXFSZ and catches SIGINT before the first line runs; where those matter, start report_signals.sh.
Bytes that are not UTF-8 appear as lone surrogates, as os.fsdecode makes them.
"""

import os
import sys

from _common import arguments, repoint, say, serve


def descriptors():
    found = {}
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def signals():
    masks = {}
    with open("/proc/self/status") as status:
        for line in status:
            key, _, value = line.partition(":")
            masks[key] = value.strip()
    names = {"blocked": "SigBlk", "ignored": "SigIgn", "caught": "SigCgt"}
    return {name: numbers(int(masks[key], 16)) for name, key in names.items()}


def numbers(mask):
    return [number for number in range(1, 65) if mask >> (number - 1) & 1]


def limits():
    with open("/proc/self/limits") as lines:
        next(lines)
        return {line[:26].strip(): line[26:].split()[:2] for line in lines}


def umask():
    value = os.umask(0)
    os.umask(value)
    return value


def report():
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "sid": os.getsid(0),
        "pgid": os.getpgid(0),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": sorted(os.getgroups()),
        "nice": os.nice(0),
        "umask": umask(),
        "cwd": os.getcwd(),
        "root": os.readlink("/proc/self/root"),
        "argv": sys.argv[1:],
        "environ": dict(os.environ),
        "descriptors": at_start,
        "stdin": at_start.get("0"),
        "limits": limits(),
        "signals": signals(),
    }


at_start = descriptors()
arguments()
import json  # noqa: E402  (after the descriptors were counted)

say(json.dumps(report()))
repoint()
serve()
