"""Names of daemons."""

from __future__ import annotations

import os

_LONGEST_NAME = 100


def base_name(command: bytes) -> str:
    """A name for a daemon that was given none: the command's base name, fit to be a file name."""
    name = os.fsdecode(os.path.basename(command.rstrip(b"/")))[:_LONGEST_NAME]
    return "".join(c if c.isprintable() and not c.isspace() else "_" for c in name).lstrip(".-") or "daemon"
