"""Our own modules are found by a finder of ours: what it loads is what Python would have loaded."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from daemonize import loading

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = os.path.dirname(os.path.abspath(loading.__file__))
LOADER = "print(type(sys.modules['daemonize.units'].__spec__.loader).__module__)"
OURS = "daemonize.loading"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A directory with a copy of the package that has not been compiled."""
    shutil.copytree(PACKAGE, tmp_path / "daemonize", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(place: Path, code: str, *options: str, **env: str) -> list[str]:
    """What a Python says that takes the package from there."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"PYTHONPATH": str(place), **env}
    code = f"import sys, daemonize\n{code}"
    done = subprocess.run(
        [sys.executable, "-P", *options, "-c", code], env=environ, cwd="/", capture_output=True, check=True
    )
    return done.stdout.decode().splitlines()


def test_modules_are_as_python_loads_them(copy: Path) -> None:
    """All that a module says of itself is the same, compiled before or not, and as with Python's own finder."""
    facts = (
        "import daemonize.units, daemonize.posix.fds, daemonize.cli, inspect, pkgutil\n"
        "for name in 'daemonize.units', 'daemonize.posix', 'daemonize.posix.fds':\n"
        "    module = sys.modules[name]; spec = module.__spec__\n"
        "    print(name, module.__file__, module.__cached__, getattr(module, '__path__', None), module.__package__,\n"
        "          spec.origin, spec.parent, spec.submodule_search_locations, spec.has_location, spec.loader.path,\n"
        "          spec.loader.name, spec.loader.is_package(name), len(inspect.getsource(module)),\n"
        "          spec.loader.get_data(module.__file__) == open(module.__file__, 'rb').read())\n"
        "print(sorted(module.name for module in pkgutil.walk_packages(daemonize.__path__)))\n"
    )
    undone = "del sys.path_importer_cache[daemonize.__path__[0]]\n"
    fresh, compiled, pythons = run(copy, facts), run(copy, facts), run(copy, undone + facts)

    assert len(fresh) == 4
    assert fresh == compiled == pythons
    assert run(copy, "import daemonize.units\n" + LOADER) == [OURS]
    assert run(copy, undone + "import daemonize.units\n" + LOADER) == ["_frozen_importlib_external"]


def test_what_has_been_compiled_is_taken(copy: Path) -> None:
    """The control of those below: it is not compiled anew, and the source is not read."""
    units = copy / "daemonize" / "units.py"
    status = units.stat()
    text = units.read_text()
    units.write_text("SECRET = 1\n".ljust(len(text.encode()) - 1, "#") + "\n")
    os.utime(units, ns=(status.st_atime_ns, status.st_mtime_ns))
    py_compile.compile(str(units), doraise=True)
    units.write_text(text)
    os.utime(units, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert run(copy, "import daemonize.units\nprint(daemonize.units.SECRET)\n" + LOADER) == ["1", OURS]


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_source_that_has_changed(copy: Path, change: str) -> None:
    """It is compiled anew."""
    units = copy / "daemonize" / "units.py"
    run(copy, "import daemonize.units")
    status, text = units.stat(), units.read_text()
    if change == "size":
        units.write_text(text + "\nADDED = 1\n")
        os.utime(units, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        units.write_text("ADDED = 1\n".ljust(len(text) - 1, "#") + "\n")
        os.utime(units, (status.st_atime, status.st_mtime + 5))

    assert run(copy, "import daemonize.units\nprint(daemonize.units.ADDED)") == ["1"]


@pytest.mark.parametrize(
    "harm", ["empty", "truncated head", "other Python's", "checked by hash", "a directory"]
)
def test_what_is_compiled_makes_no_sense(copy: Path, harm: str) -> None:
    """Python's own class decides."""
    run(copy, "import daemonize.units")
    (cached,) = (copy / "daemonize" / "__pycache__").glob("units.*")
    data = cached.read_bytes()
    if harm == "a directory":
        cached.unlink()
        cached.mkdir()
    elif harm == "checked by hash":
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        py_compile.compile(str(copy / "daemonize" / "units.py"), doraise=True, invalidation_mode=mode)
    else:
        cached.write_bytes(
            {"empty": b"", "truncated head": data[:10], "other Python's": b"\0\0\r\n" + data[4:]}[harm]
        )

    assert run(copy, "import daemonize.units\n" + LOADER) == [OURS]


def test_a_package_that_was_moved(copy: Path) -> None:
    """Its functions say where they are, and not where they were compiled: tracebacks and warnings go by that."""
    code = f"from daemonize.units import seconds_of\n{LOADER}\nprint(seconds_of.__code__.co_filename)"
    before = run(copy, code)
    (copy / "elsewhere").mkdir()
    os.rename(copy / "daemonize", copy / "elsewhere/daemonize")
    after = run(copy / "elsewhere", code)

    assert before == [OURS, f"{copy}/daemonize/units.py"]
    assert after == [OURS, f"{copy}/elsewhere/daemonize/units.py"]


def test_a_package_beside_a_module_of_its_name(copy: Path) -> None:
    """The package is it, as everywhere in Python: the module may be what an older version has left."""
    (copy / "daemonize/posix.py").write_text("raise SystemExit('old')")

    assert run(copy, "import daemonize.posix as it\nprint(it.__file__)") == [
        f"{copy}/daemonize/posix/__init__.py"
    ]


def test_a_directory_with_the_name_of_a_source(copy: Path) -> None:
    """It is none."""
    (copy / "daemonize/absent.py").mkdir()

    assert run(copy, "from importlib.util import find_spec\nprint(find_spec('daemonize.absent'))") == ["None"]


@pytest.mark.parametrize("name", ["posix/child", "", "\\0", "\\ud800", "x" * 300])
def test_names_that_no_module_has(copy: Path, name: str) -> None:
    """They are looked for in a listing, as by Python, and not as a path."""
    code = f"try: __import__('daemonize.{name}')\nexcept ModuleNotFoundError: print('absent')"

    assert run(copy, code) == ["absent"]


def test_a_module_that_is_not_there(copy: Path) -> None:
    """It is said as always; one that is made later is found."""
    code = (
        "import importlib\n"
        "try:\n    import daemonize.nothing\nexcept ModuleNotFoundError as error:\n    print(error)\n"
        "open(daemonize.__path__[0] + '/nothing.py', 'w').write('x = 5')\n"
        "importlib.invalidate_caches()\n"
        "import daemonize.nothing\nprint(daemonize.nothing.x)\n"
    )

    assert run(copy, code) == ["No module named 'daemonize.nothing'", "5"]


@pytest.mark.parametrize(
    ("options", "env"), [(["-O"], {}), (["-OO"], {}), ([], {"PYTHONPYCACHEPREFIX": "/nowhere/at/all"})]
)
def test_python_keeps_what_is_compiled_elsewhere(copy: Path, options: list[str], env: dict[str, str]) -> None:
    """Python's own finder stays."""
    assert run(copy, "import daemonize.units\n" + LOADER, *options, **env) == ["_frozen_importlib_external"]


def test_a_zip_file(copy: Path) -> None:
    """What is no file is loaded as Python does."""
    archive = copy / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (copy / "daemonize").rglob("*.py"):
            file.write(path, path.relative_to(copy))

    assert run(archive, "import daemonize.units\n" + LOADER) == ["zipimport"]


def test_a_directory_that_cannot_be_written_to(copy: Path) -> None:
    """Nothing is written when nothing is to be written."""
    assert run(copy, "import daemonize.units\n" + LOADER, "-B") == [OURS]
    assert list((copy / "daemonize").glob("**/*.pyc")) == []
