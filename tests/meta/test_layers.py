"""The rooms of the design: a module imports only from the layers below its own."""

from __future__ import annotations

import ast
import graphlib
import os
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: Lowest first; a room is a module or a package of `daemonize`, and may use its own modules and all lower layers.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"loading"}),
    frozenset({"errors"}),
    frozenset(
        {
            "channel_errors",
            "child_errors",
            "daemon_errors",
            "lock_errors",
            "manager_errors",
            "outcomes",
            "units",
        }
    ),
    frozenset({"posix"}),
    frozenset({"channel", "file_lock", "listen", "notify"}),
    frozenset({"announce", "logs", "offspring", "readiness", "registry"}),
    frozenset({"launcher", "manager", "child_server"}),
    frozenset({"executor", "option", "background", "supervisor"}),
    frozenset({"cli", "pytest_plugin"}),
    frozenset({"__init__", "__main__"}),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


class Import(NamedTuple):
    """One import of a module of ours. `at_once`: it happens as soon as the importing module is loaded."""

    line: int
    target: str
    at_once: bool


def modules(root: str) -> dict[str, str]:
    """Every module of the package below `root`: its dotted name, and its source."""
    found = {}
    for directory, _, files in os.walk(os.path.join(root, "daemonize")):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(directory, file)
                name = os.path.relpath(path, root)[: -len(".py")].replace(os.sep, ".")
                with open(path) as source:
                    found[name.removesuffix(".__init__") if name.count(".") > 1 else name] = source.read()
    return found


def room(module: str) -> str:
    """The room a module is in: `daemonize.posix.stop` is in `posix`."""
    return module.split(".")[1] if "." in module else "__init__"


def is_for_types(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:` never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(module: str, source: str, known: set[str]) -> Iterator[Import]:
    """Every import of ours in a module, wherever it stands."""

    def visit(node: ast.AST, *, at_once: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
                yield from (Import(child.lineno, name, at_once) for name in names if is_ours(name))
            elif isinstance(child, ast.ImportFrom):
                base = absolute(child)
                for alias in child.names if is_ours(base) else ():
                    submodule = f"{base}.{alias.name}"
                    yield Import(child.lineno, submodule if submodule in known else base, at_once)
            else:
                later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(child)
                yield from visit(child, at_once=at_once and not later)

    def absolute(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = module.split(".") if f"{module}.__init__" in known else module.split(".")[:-1]
        parents = package[: len(package) - node.level + 1]
        return ".".join([*parents, *filter(None, [node.module])])

    def is_ours(name: str) -> bool:
        return name.partition(".")[0] == "daemonize"

    yield from visit(ast.parse(source), at_once=True)


def misplaced(sources: dict[str, str]) -> Iterator[str]:
    """One line for each import that goes up or sideways, and for each room that is not in the table."""
    for module, source in sources.items():
        here = LAYER.get(room(module))
        if here is None:
            yield f"{module}: the room '{room(module)}' is not in the table of layers"
            continue
        for line, target, _ in imports(module, source, set(sources)):
            if room(target) != room(module) and LAYER.get(room(target), len(LAYERS)) >= here:
                yield f"{module}:{line} imports {target}, which is not in a layer below"


def test_modules_import_only_from_layers_below() -> None:
    """No import goes up or sideways, not even inside a function or for types only."""
    assert list(misplaced(modules(ROOT))) == []


def test_no_import_cycles() -> None:
    """No two modules need each other to be loaded."""
    sources = modules(ROOT)
    needs = {
        module: {found.target for found in imports(module, source, set(sources)) if found.at_once} - {module}
        for module, source in sources.items()
    }

    assert list(graphlib.TopologicalSorter(needs).static_order())


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("posix.stop", "from daemonize.launcher import wrapper", "imports daemonize.launcher"),
        ("posix.stop", "from daemonize import launcher", "imports daemonize.launcher"),
        ("posix.stop", "import daemonize.cli.main", "imports daemonize.cli.main"),
        ("posix.stop", "from ..cli import main", "imports daemonize.cli"),
        ("posix.stop", "def late():\n    from daemonize import manager", "imports daemonize"),
        ("errors", "if TYPE_CHECKING:\n    from daemonize.posix import stop", "imports daemonize.posix"),
        ("manager", "import daemonize.child_server", "imports daemonize.child_server"),
        ("cli.main", "from daemonize import launcher_it", "imports daemonize,"),
        ("attic", "import os", "the room 'attic' is not in the table"),
    ],
)
def test_a_misplaced_import_is_found(module: str, source: str, fault: str) -> None:
    """Negative control: whatever its form, an import that goes up is found."""
    known = {"daemonize.launcher": "", "daemonize.launcher.wrapper": "", "daemonize.cli.main": ""}

    (found,) = misplaced({**known, f"daemonize.{module}": source})

    assert fault in found


def test_what_is_allowed_passes() -> None:
    """Imports from below, from the own room, and of others' modules are no faults."""
    source = textwrap.dedent(
        """
        import os, select
        from daemonize.errors import UsageError
        from daemonize.posix import stop
        from daemonize.launcher.drain import leave
        from . import request
        """
    )

    assert list(misplaced({"daemonize.launcher.wrapper": source, "daemonize.launcher.request": ""})) == []
