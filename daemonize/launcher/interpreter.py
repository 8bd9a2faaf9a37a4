"""A fresh interpreter for a process of ours that must not be a copy of the caller."""

from __future__ import annotations

import os
import sys

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = """\
import sys
sys.path[:] = sys.argv[1].split(":")
__import__(sys.argv[2], fromlist=["main"]).main(sys.argv[3:])
"""


def command(module: str, *arguments: object) -> list[str]:
    """The argument list of an interpreter that runs `main(arguments)` of a module of ours.

    What the caller finds on its path, that finds, too; but for what lies in the current directory.
    """
    path = ":".join([*filter(os.path.isabs, sys.path), _PACKAGES])
    return [sys.executable, "-I", "-c", _PROGRAM, path, module, *map(str, arguments)]
