"""What a log says of output that could not be written (daemonize/launcher/logwriter.py)."""

from __future__ import annotations

import re

NOTE = re.compile(rb"daemonize: (\d+) bytes of output were lost here \(([^)]*)\)\n")


def check_counted(text: bytes, sent: bytes, width: int = 0, why: bytes = b"No space left on device") -> None:
    """Every line there is was sent, in this order, and is whole but for those before a note; the rest is in the notes.

    sent: lines, each another. width: of the stamp before each line.
    """
    lines = [line[width:] for line in text.splitlines(keepends=True)]
    rest = iter(sent.splitlines(keepends=True))
    lost = there = 0
    for line, after in zip(lines, [*lines[1:], b""], strict=True):
        if note := NOTE.fullmatch(line):
            lost += int(note[1])
            assert note[2] == why
        elif NOTE.fullmatch(after):  # it may be cut off: then its end is the log's own
            whole = next(found for found in rest if found.startswith(line[:-1]))
            there += len(line) - (line != whole)
        else:
            assert line in rest, line
            there += len(line)
    assert lost, "nothing was lost"
    assert lost + there == len(sent)
