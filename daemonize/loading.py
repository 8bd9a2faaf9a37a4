"""Our own modules, found without what Python does for everybody's: a launch loads some forty small ones.

Python looks for each under five suffixes, and looks at its source three times (importlib.machinery.FileFinder and
SourceFileLoader): that takes longer than the module itself, and a tenth of a launch in all. Here, what has been compiled
from the source as it is now is taken from where Python keeps it (PEP 3147), with the same proof, the time and the size that
it was compiled from. Where there is nothing such, and for everything else, Python's own classes do as they always do: these
are derived from them, and stand in sys.path_importer_cache for the directories of this package alone.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import (  # type: ignore[attr-defined]
    MAGIC_NUMBER,
    FileFinder,
    SourceFileLoader,
    _compile_bytecode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

#: What is compiled from a source, by its time and size: what follows is a word for each (PEP 552).
_HEAD = MAGIC_NUMBER + b"\0\0\0\0"
#: Bytes of the longest that is read here.
_MOST = 1 << 16
#: What of a mode tells the kind of a file, and that of one with bytes in it (inode(7)).
_FORMAT, _REGULAR = 0o170000, 0o100000


class Loader(SourceFileLoader):
    """Loads one module. cached: where its code is kept. mark: the time and the size of its source."""

    def __init__(self, fullname: str, path: str, cached: str, mark: bytes) -> None:
        super().__init__(fullname, path)
        self._cached, self._mark = cached, mark

    def get_code(self, fullname: str) -> CodeType | None:
        """As it was compiled, or as Python compiles it."""
        try:
            fd = posix.open(self._cached, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                data = posix.read(fd, _MOST)
            finally:
                posix.close(fd)
        except OSError:
            data = b""
        if data[:16] != self._mark or len(data) == _MOST:
            return super().get_code(fullname)
        # It may have been compiled under another path: Python puts that right, and sees that it is code.
        return _compile_bytecode(memoryview(data)[16:], fullname, self._cached, self.path)  # type: ignore[no-any-return]


class Finder(FileFinder):
    """Finds what is in one directory."""

    def __init__(self, path: str) -> None:
        super().__init__(path, (SourceFileLoader, [".py"]))

    def find_spec(self, fullname: str, target: object = None) -> ModuleSpec | None:
        """A module or a package. What is neither, Python's own class looks for."""
        name = fullname.rpartition(".")[2]
        if not (name.isascii() and name.isidentifier()):
            return super().find_spec(fullname)  # which looks for it in a listing, and not below a/b
        base = f"{self.path}/{name}"
        return (
            self._package(fullname, base) or self._spec(fullname, base + ".py") or super().find_spec(fullname)
        )

    def _package(self, fullname: str, directory: str) -> ModuleSpec | None:
        spec = self._spec(fullname, directory + "/__init__.py")
        if spec:
            spec.submodule_search_locations = [directory]
            _take_over(directory)
        return spec

    def _spec(self, fullname: str, source: str) -> ModuleSpec | None:
        try:
            status = posix.stat(source)
        except OSError:
            return None
        if status.st_mode & _FORMAT != _REGULAR:
            return None
        directory, _, name = source.rpartition("/")
        cached = f"{directory}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc"
        mark = _HEAD + _word(int(status.st_mtime)) + _word(status.st_size)
        spec = ModuleSpec(fullname, Loader(fullname, source, cached, mark), origin=source)
        spec.has_location, spec.cached = True, cached
        return spec


def _word(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


def begin(spec: ModuleSpec) -> None:
    """Find what belongs to this package so, if it is made of files, and Python keeps what is compiled beside them."""
    if isinstance(spec.loader, SourceFileLoader) and not (sys.pycache_prefix or sys.flags.optimize):
        for directory in spec.submodule_search_locations or ():
            _take_over(directory)


def _take_over(directory: str) -> None:
    sys.path_importer_cache[directory] = Finder(directory)
