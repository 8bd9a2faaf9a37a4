"""The readiness wire formats.

The streams protocol: `DAEMONIZE_STREAMS` names both pipes of the wrapper as `DEV:INO,DEV:INO` (stdout, stderr; decimal,
as JOURNAL_STREAM does in systemd.exec(5)), so that a process can tell whether a descriptor of its own still is one.
"""

from __future__ import annotations

import os

STREAMS = b"DAEMONIZE_STREAMS"
STDOUT = b"DAEMONIZE_STDOUT"
STDERR = b"DAEMONIZE_STDERR"
ID = b"DAEMONIZE_ID"


def streams_value(stdout: int, stderr: int) -> bytes:
    """The value of DAEMONIZE_STREAMS for two descriptors."""
    return b",".join(
        b"%d:%d" % (status.st_dev, status.st_ino) for status in (os.fstat(stdout), os.fstat(stderr))
    )
