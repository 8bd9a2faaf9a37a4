"""`--safe`: as root, a program that somebody else may change is refused, whatever it is that he may change."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from daemonize.launcher.safe import check
from daemonize.outcomes import Unsafe
from tests.support import cli, users
from tests.support.forked import need_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = users.NOBODY.uid
GROUP = users.NOBODY.gid


@pytest.fixture
def base() -> Iterator[str]:
    """A directory that nobody but root can get at, with a program in it: `bin/program`, a link to it, and a script."""
    need_root()
    directory = tempfile.mkdtemp(dir="/run", prefix="daemonize-test-")
    os.chmod(directory, 0o755)
    os.mkdir(f"{directory}/bin")
    os.mkdir(f"{directory}/other")
    shutil.copy("/bin/true", f"{directory}/bin/program")
    shutil.copy("/bin/sh", f"{directory}/other/sh")
    os.symlink("bin/program", f"{directory}/link")
    with open(f"{directory}/bin/script", "w") as script:
        script.write(f"#!{directory}/other/sh\nexit 3\n")
    os.chmod(f"{directory}/bin/script", 0o755)
    yield directory
    shutil.rmtree(directory)


def refused(directory: str, path: str = "bin/program", uid: int = 0, root: str | None = None) -> str:
    """Why a program is refused; empty if it is not."""
    paths = [os.fsencode(path if path.startswith("/") else f"{directory}/{path}")]
    try:
        assert check(paths, os.fsencode(root) if root else None, uid) == paths[0]
    except Unsafe as error:
        return error.reason
    return ""


def test_control_what_nobody_else_can_change_is_executed(base: str) -> None:
    """Negative control: by its path, through a link, by way of `..`, as a script, from PATH."""
    for path in ("bin/program", "link", "other/../bin/program", "bin//./program", "bin/script"):
        assert refused(base, path) == ""
    done = cli.run("--safe", "-E", f"PATH={base}/bin", "script")

    assert (done.status, done.out) == (3, b"")


def _give_to_group(directory: str) -> None:
    os.chown(f"{directory}/bin/program", 0, GROUP)
    os.chmod(f"{directory}/bin/program", 0o775)


FAULTS: dict[str, tuple[Callable[[str], None], str, str]] = {
    "file of another user": (lambda d: os.chown(f"{d}/bin/program", NOBODY, 0), "bin/program", "belongs to nobody"),
    "file for everybody": (lambda d: os.chmod(f"{d}/bin/program", 0o757), "bin/program", "by everybody"),
    "file for a group": (_give_to_group, "bin/program", f"by group {GROUP}"),
    "directory of another user": (lambda d: os.chown(f"{d}/bin", NOBODY, 0), "bin", "belongs to nobody"),
    "directory for everybody": (lambda d: os.chmod(f"{d}/bin", 0o777), "bin", "by everybody"),
    "sticky directory": (lambda d: os.chmod(f"{d}/bin", 0o1777), "bin", "by everybody"),
    "directory further up": (lambda d: os.chmod(d, 0o777), "", "by everybody"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("path", ["bin/program", "link"])
def test_what_somebody_else_can_change_is_refused(name: str, path: str, base: str) -> None:
    """126, one line that names the program, what can be changed, and by whom; nothing is executed."""
    make, what, says = FAULTS[name]
    make(base)
    done = cli.run("--safe", f"{base}/{path}")

    text = done.err.decode()
    assert (done.status, done.out) == (126, b"")
    assert text.startswith(f"daemonize: {base}/{path} is not safe to execute as root (--safe): ")
    assert text.count("\n") == 1
    assert f"{base}/{what}".rstrip("/") in text
    assert says in text


def test_another_users_link(base: str) -> None:
    """He can point it elsewhere."""
    os.lchown(f"{base}/link", NOBODY, 0)

    assert refused(base, "link") == f"file {base}/link belongs to nobody"
    assert refused(base, "bin/program") == ""


def test_a_link_to_where_others_can_write(base: str) -> None:
    """The way is looked at, and not only its beginning and its end."""
    os.mkdir(f"{base}/open")
    os.symlink(f"{base}/open/../bin", f"{base}/way")
    assert refused(base, "way/program") == ""
    os.chmod(f"{base}/open", 0o777)

    assert refused(base, "way/program") == f"directory {base}/open can be written to by everybody"


def test_links_without_end(base: str) -> None:
    """A loop of links is an error of its own, and no endless search."""
    os.symlink("b", f"{base}/a")
    os.symlink("a", f"{base}/b")
    done = cli.run("--safe", f"{base}/a")

    assert done.status in {126, 127}


def test_the_interpreter_of_a_script(base: str) -> None:
    """Who may change the interpreter may change what the script does."""
    os.chmod(f"{base}/other/sh", 0o777)

    assert refused(base, "bin/script") == f"file {base}/other/sh can be written to by everybody"
    assert refused(base, "bin/program") == ""


def test_an_interpreter_without_a_directory(base: str) -> None:
    """It would be whatever lies in the directory that the server runs in."""
    with open(f"{base}/bin/script", "w") as script:
        script.write("#!sh\nexit 3\n")

    assert refused(base, "bin/script") == "its interpreter sh is looked for in the directory that it runs in"


def test_the_servers_own_user_may_write(base: str) -> None:
    """With -u the program may be his: root does not execute it."""
    os.chown(f"{base}/bin/program", NOBODY, GROUP)

    assert refused(base, uid=NOBODY) == ""
    assert "belongs to nobody" in refused(base, uid=NOBODY + 1)
    assert "belongs to nobody" in refused(base, uid=0)


def test_only_what_was_looked_at_is_executed(base: str) -> None:
    """The first of PATH that may be executed, and no other if that fails."""
    with open(f"{base}/other/tool", "w") as file:
        file.write("not a program")
    os.chmod(f"{base}/other/tool", 0o755)
    shutil.copy("/bin/true", f"{base}/bin/tool")
    path = f"PATH={base}/nowhere:{base}/other:{base}/bin"

    os.chmod(f"{base}/bin", 0o777)
    assert cli.run("--safe", "-E", path, "tool").err.endswith(
        b"Exec format error (a script without a #! line?)\n"
    )


def test_in_a_new_root(base: str) -> None:
    """The way to the root counts, and absolute links start from it."""
    os.symlink("/bin/program", f"{base}/absolute")
    assert refused("", "/absolute", root=base) == ""
    os.chmod(f"{base}/bin", 0o777)

    assert refused("", "/absolute", root=base) == f"directory {base}/bin can be written to by everybody"


@pytest.mark.parametrize("way", ["/up", "/../bin/program", "/../../bin/program"])
def test_nothing_leads_out_of_a_new_root(way: str, base: str) -> None:
    """`..` ends at the new root for the kernel, and so it does here: another program is not looked at instead."""
    os.symlink("../../../bin/program", f"{base}/up")
    assert refused("", way, root=base) == ""
    os.chmod(f"{base}/bin/program", 0o777)

    assert refused("", way, root=base) == f"file {base}/bin/program can be written to by everybody"


def test_as_many_interpreters_as_the_kernel_takes(base: str) -> None:
    """Five scripts, each the interpreter of the one before, and a program at the end."""
    os.chmod(f"{base}/bin/program", 0o777)
    for number in range(1, 6):
        following = f"script{number + 1}" if number < 5 else "program"
        with open(f"{base}/bin/script{number}", "w") as script:
            script.write(f"#!{base}/bin/{following}\n")
        os.chmod(f"{base}/bin/script{number}", 0o755)

    assert cli.run("-r", "exit", f"{base}/bin/script1").status == 1  # it is executed, and exits 0
    assert refused(base, "bin/script1") == f"file {base}/bin/program can be written to by everybody"


def test_it_is_not_the_default(base: str) -> None:
    """Without it nothing is looked at; and for an ordinary user it means nothing."""
    os.chmod(f"{base}/bin", 0o777)
    done = cli.run("-r", "exit", f"{base}/bin/program")
    with users.open_directory() as directory:
        words = [
            *users.become(users.NOBODY),
            users.python(),
            "-m",
            "daemonize",
            "--safe",
            "-r",
            "exit",
            f"{base}/link",
        ]
        environment = cli.environ({**users.environ(), "DAEMONIZE_STATE_DIR": f"{directory}/state"})
        other = subprocess.run(words, env=environment, cwd="/", capture_output=True, check=False, timeout=20)

    assert done.status == 1
    assert other.returncode == 1
