"""A fresh interpreter for a process of ours that must not be a copy of the caller."""

from __future__ import annotations

import os
import sys
from errno import ENOENT

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM = """\
# {module}
import sys
count = int(sys.argv[1])
sys.path[:] = sys.argv[2 : count + 2]
__import__(sys.argv[count + 2], fromlist=["main"]).main(sys.argv[count + 3 :])
"""


def command(module: str, *arguments: object) -> list[str]:
    """The argument list of an interpreter that runs `main(arguments)` of a module of ours.

    What the caller finds on its path, that finds, too; but for what lies in the current directory. Raises
    FileNotFoundError in a program that has Python embedded, and has not said where there is an interpreter.
    """
    if not sys.executable:
        raise FileNotFoundError(ENOENT, "sys.executable does not say where there is an interpreter")
    path = [*filter(os.path.isabs, sys.path), _PACKAGES]
    program = _PROGRAM.replace("{module}", module)  # what people see in ps(1)
    return [sys.executable, "-I", "-c", program, str(len(path)), *path, module, *map(str, arguments)]
