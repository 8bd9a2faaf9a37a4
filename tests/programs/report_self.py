"""Says in one line of JSON what it was started with, becomes ready (1 and 2 at /dev/null), and stays.

report_self.py [until=TRIGGER] [into=FILE] [ARGUMENTS...]

pid ppid sid pgid tty uid gid groups nice umask cwd root root_inode argv environ oom_score_adj, `cmdline` (a list),
`uids` and `gids` (real, effective, saved, file system), `capabilities` {set: hexadecimal}, `descriptors` {number:
target}, `stdin` (target), `streams` {name: {target, flags (octal), offset}}, `limits` {name: [soft, hard]}, `signals`
{blocked, ignored, caught}: lists of numbers. Python itself ignores SIGPIPE and SIGXFSZ and catches SIGINT before the
first line runs; where those matter, start report_signals.sh. Bytes that are not UTF-8 appear as lone surrogates, as
os.fsdecode makes them.

into=FILE: the report goes there (a fifo waits for its reader), after the words `out` on stdout and `err` on stderr.
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


def fields(path):
    with open(path) as lines:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def streams():
    found = {}
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if str(number) in at_start:
            info = fields(f"/proc/self/fdinfo/{number}")
            found[name] = {
                "target": at_start[str(number)],
                "flags": info["flags"],
                "offset": int(info["pos"]),
            }
    return found


def signals(status):
    names = {"blocked": "SigBlk", "ignored": "SigIgn", "caught": "SigCgt"}
    return {name: numbers(int(status[key], 16)) for name, key in names.items()}


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


def tty():
    return int(word("/proc/self/stat").rpartition(") ")[2].split()[4])


def word(path):
    with open(path) as file:
        return file.read().strip()


def report():
    status = fields("/proc/self/status")
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "sid": os.getsid(0),
        "pgid": os.getpgid(0),
        "tty": tty(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "uids": status["Uid"].split(),
        "gids": status["Gid"].split(),
        "groups": sorted(os.getgroups()),
        "capabilities": {name: value for name, value in status.items() if name.startswith("Cap")},
        "oom_score_adj": word("/proc/self/oom_score_adj"),
        "nice": os.nice(0),
        "umask": umask(),
        "cwd": os.getcwd(),
        "root": os.readlink("/proc/self/root"),
        "root_inode": os.stat("/").st_ino,
        "argv": sys.argv[1:],
        "cmdline": sys.orig_argv,
        "environ": dict(os.environ),
        "descriptors": at_start,
        "stdin": at_start.get("0"),
        "streams": at_the_streams,
        "limits": limits(),
        "signals": signals(status),
    }


def into(words):
    paths = [word.removeprefix("into=") for word in words if word.startswith("into=")]
    if not paths:
        return 1
    target = os.open(paths[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    say("out")
    say("err", to=2)
    return target


at_start = descriptors()
at_the_streams = streams()
target = into(arguments())
import json  # noqa: E402  (after the descriptors were counted)

say(json.dumps(report()), to=target)
if target > 2:
    os.close(target)
repoint()
serve()
