"""nginx that logs to stderr keeps our pipe for its whole life."""

from __future__ import annotations

import os

import pytest

from tests.support import ports, procs
from tests.support.servers import launched, prepare_nginx, stop

pytestmark = pytest.mark.servers

REQUESTS = 200
PATH = "/missing/" + "x" * 600


def test_with_error_log_stderr_it_serves_on_and_every_line_is_kept(tmp_path: os.PathLike[str]) -> None:
    """It is ready at once; a drain keeps its log, far more than a pipe holds, up to its last line."""
    port = ports.free_port()
    with launched(*prepare_nginx(str(tmp_path), "", port, error_log="stderr")) as report:
        answers = [ports.get(port, PATH) for _ in range(REQUESTS)]
        drain = procs.stat(report["drain"])
        stop(report)
    with open(report["files"]["stderr"], "rb") as file:
        log = file.read()

    assert all(answer.startswith(b"HTTP/1.1 404 ") for answer in answers)
    assert drain is not None
    assert drain.ppid != report["pid"]
    assert log.count(b'"GET ' + PATH.encode()) == REQUESTS


def test_the_main_process_is_the_master(tmp_path: os.PathLike[str]) -> None:
    """The pid that is reported is the one in nginx's own pid file, not the worker's or the first process's."""
    with launched(*prepare_nginx(str(tmp_path), "", ports.free_port())) as report:
        with open(os.path.join(tmp_path, "nginx.pid")) as file:
            master = int(file.read())
        workers = [process.name for process in procs.children(report["pid"])]

    assert report["pid"] == master
    assert workers == ["nginx"]
