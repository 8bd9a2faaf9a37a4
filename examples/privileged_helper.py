#!/usr/bin/env python3
"""A program gives up its privileges and keeps a helper that has them: it opens files, and hands the descriptors back.

Run as root, the program becomes `nobody`; run by another user, it shows the same without that.
"""

from __future__ import annotations

import os
import tempfile

from daemonize import ChildServer, RemoteError, message_handler

NOBODY = 65534


class Opener(ChildServer):
    """Opens the files of one directory, for reading, and no others."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory

    def initialize_server(self) -> None:
        """An error in here is raised by start()."""
        self.base = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)

    @message_handler("open")
    def open_file(self, name: str) -> None:
        """A message ["open", NAME] is answered with a descriptor, or with what is wrong."""
        if "/" in name or name in (".", ".."):
            raise PermissionError(f"{name} is not a file of that directory")
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.base)
        try:
            self.client.send_io(fd)
        finally:
            os.close(fd)


def drop_privileges() -> None:
    """For good."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def read_by(helper: Opener, name: str) -> str:
    """What the file says."""
    helper.server.write("open", name)
    fd = helper.server.recv_io()
    if fd is None:
        raise EOFError("the helper has ended")
    with os.fdopen(fd) as file:
        return file.read()


def main() -> None:
    """Show it."""
    with tempfile.TemporaryDirectory() as directory:
        with open(
            os.path.join(directory, "secret"), "w", opener=lambda path, flags: os.open(path, flags, 0o600)
        ) as file:
            file.write("swordfish")
        if os.fork() == 0:
            work(directory)
            os._exit(0)
        os.wait()


def work(directory: str) -> None:
    """In a process of its own, so that somebody is left who may remove the directory."""
    with Opener(directory) as helper:
        drop_privileges()
        print("the helper opened it:", read_by(helper, "secret"), flush=True)
        for name in ("../etc/passwd", "nothing"):
            try:
                read_by(helper, name)
            except RemoteError as error:
                print(f"refused: {error.type}: {error.text}", flush=True)
    print("the helper has ended with status", helper.exit_status, flush=True)


if __name__ == "__main__":
    main()
