"""Ways to have a server for as long as some code runs: `with`, `async with`, a decorator."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from typing import TYPE_CHECKING, Any

from daemonize.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Ways:
    """What can be started and stopped, by the process that made it (`_pid`), and made once more (`_another`)."""

    _pid: int

    def start(self) -> Self:
        """Start it, and return it when it is ready."""
        raise NotImplementedError  # pragma: no cover (the one subclass has its own)

    def stop(self) -> None:
        """End it; returns when all is gone."""
        raise NotImplementedError  # pragma: no cover (the one subclass has its own)

    def _another(self) -> Self:
        raise NotImplementedError  # pragma: no cover (the one subclass has its own)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if os.getpid() == self._pid:  # a forked child that leaves the block has not started it
            self.stop()

    async def __aenter__(self) -> Self:
        await _in_thread(self.start, self.stop)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await _in_thread(self.stop, self.stop)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator: each call of the function has a server of its own."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{function.__name__} is a generator: its server would end before it begins; use `with` in it"
            )
        gives = "server" in inspect.signature(function).parameters

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._another() as server:
                return function(*args, **({"server": server} if gives else {}), **kwargs)

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            async with self._another() as server:
                return await function(*args, **({"server": server} if gives else {}), **kwargs)

        chosen: Any = call_async if inspect.iscoroutinefunction(function) else call
        signature = inspect.signature(function)
        left = [parameter for name, parameter in signature.parameters.items() if name != "server"]
        # Else pytest would look for a fixture of that name.
        chosen.__signature__ = signature.replace(parameters=left)
        return chosen  # type: ignore[no-any-return]


async def _in_thread(action: Callable[[], object], undo: Callable[[], None]) -> None:
    """Do it without blocking the event loop; if the task is cancelled meanwhile, undo it first."""
    doing = asyncio.ensure_future(asyncio.to_thread(action))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        undoing = asyncio.ensure_future(_undo(doing, undo))
        while not undoing.done():
            try:
                await asyncio.shield(undoing)
            except asyncio.CancelledError:
                pass  # whoever cancels again (a loop that closes, a scope of anyio) is not spared the end of the server
        undoing.result()
        raise


async def _undo(doing: asyncio.Future[object], undo: Callable[[], None]) -> None:
    await asyncio.to_thread(undo)
    await asyncio.wait([doing])
    if doing.exception() is None:
        await asyncio.to_thread(undo)  # it had not begun when it was undone
