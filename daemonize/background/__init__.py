"""A real server beside a program, for as long as the program needs it; made for test suites."""

from __future__ import annotations

from daemonize.background.server import BackgroundServer

__all__ = ["BackgroundServer"]
