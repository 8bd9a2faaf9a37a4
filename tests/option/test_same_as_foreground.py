"""What a caller has of a command that ends before it is ready is the same with `--daemonize` and without."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import apps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: What one line of ours says, and where the server has said nothing itself, or ended well.
OURS = re.compile(
    rb"app\.py: the server (exited (0|with status \d+)|was killed by SIG[A-Z0-9]+) after [\d.]+ s, [a-z ]+\n\Z"
)


def without_addresses(result: apps.Result) -> apps.Result:
    """The same with the addresses of objects, which differ from run to run, taken out of what was said."""
    return result._replace(err=re.sub(rb"0x[0-9a-f]+", b"0x", result.err))


def plain(body: str) -> str:
    """A command, with an option beside ours."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return (
        "@click.command()\n@daemonize_option()\n@click.option('--port', type=int)\n@click.pass_context\n"
        f"def main(ctx, port):\n    print('here')\n{lines}\nmain()\n"
    )


def within(call: str, body: str) -> str:
    """A program that calls its command so, and says what came of it."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"@click.command()\n@daemonize_option()\n@click.pass_context\ndef main(ctx):\n    print('here')\n{lines}\n{call}"


CATCHING = """\
try:
    print('returned', main(standalone_mode=False))
except click.ClickException as error:
    print('caught', error.format_message())
    sys.exit(9)
except (click.Abort, RuntimeError, SystemExit, KeyboardInterrupt) as error:
    print('caught', repr(error))
    sys.exit(8)
print('after')
sys.exit(7)
"""

ERROR = """\
class Mine(click.ClickException):
    exit_code = 43
    def show(self, file=None):
        click.echo('mine: ' + self.message, err=True)
raise Mine('is wrong')"""

DEFAULT = (
    "sys.stdout.flush()\nsignal.signal(signal.SIGNAME, signal.SIG_DFL)\nsignal.raise_signal(signal.SIGNAME)"
)
SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "USR1": 10, "SEGV": 11, "PIPE": 13, "TERM": 15}
AGAIN = "try:\n    main()\nexcept SystemExit as e:\n    print(e.code)\n    sys.exit(e.code + 1)"
DEEPER = "def start():\n    with open(os.devnull) as f:\n        main()\nstart()"
BY_PARTS = "with main.make_context('x', sys.argv[1:]) as ctx:\n    main.invoke(ctx)"

#: Programs that end before they are ready, with the status of each.
ENDS = {
    "returns": (plain("return 5"), 0),
    "exit 0": (plain("ctx.exit()"), 0),
    "exit 3": (plain("ctx.exit(3)"), 3),
    "exit 255": (plain("ctx.exit(255)"), 255),
    "fail": (plain("ctx.fail('it cannot be')"), 2),
    "abort": (plain("ctx.abort()"), 1),
    "Abort": (plain("raise click.Abort"), 1),
    "ClickException": (plain("raise click.ClickException('went wrong')"), 1),
    "own ClickException": (plain(ERROR), 43),
    "FileError": (plain("raise click.FileError('there', 'not')"), 1),
    "BadParameter": (plain("raise click.BadParameter('no', param_hint='port')"), 2),
    "sys.exit()": (plain("sys.exit()"), 0),
    "sys.exit(4)": (plain("sys.exit(4)"), 4),
    "sys.exit(256)": (plain("sys.exit(256)"), 0),
    "sys.exit(-1)": (plain("sys.exit(-1)"), 255),
    "sys.exit(text)": (plain("sys.exit('that was it')"), 1),
    "os._exit": (plain("sys.stdout.flush()\nos._exit(6)"), 6),
    "os._exit unflushed": (plain("os._exit(6)"), 6),
    "exception": (plain("raise RuntimeError('unforeseen')"), 1),
    "chained exception": (plain("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError('a') from e"), 1),
    "OSError": (plain("open('/nonexistent')"), 1),
    "BaseException": (plain("class Odd(BaseException): pass\nraise Odd('?')"), 1),
    "exception group": (plain("raise ExceptionGroup('several', [ValueError(1), KeyError(2)])"), 1),
    "exception in a thread": (plain("t = threading.Thread(target=lambda: 1/0, name='t')\nt.start()\nt.join()"), 0),
    "a thread goes on": (
        plain(
            "def later():\n    threading.main_thread().join()\n    os.write(1, b'later')\n"
            "threading.Thread(target=later).start()\nctx.exit(3)"
        ),
        3,
    ),
    "sys.exit in a thread": (plain("t = threading.Thread(target=sys.exit, args=(5,))\nt.start()\nt.join()\nctx.exit(2)"), 2),
    "KeyboardInterrupt": (plain("raise KeyboardInterrupt"), 1),
    "BrokenPipeError": (plain("raise BrokenPipeError(32, 'nobody reads')"), 1),
    "EOFError": (plain("raise EOFError"), 1),
    "input": (plain("click.prompt('name')"), 1),
    "raised by a handler": (
        plain("def handle(*_): raise RuntimeError('TERM')\nsignal.signal(signal.SIGTERM, handle)\nos.kill(os.getpid(), 15)"),
        1,
    ),
    "stdout is closed": (plain("sys.stdout.close()\nctx.exit(3)"), 3),
    "stdout None": (plain("sys.stdout.flush()\nsys.stdout = None\nctx.exit(3)"), 3),
    "excepthook": (plain("sys.excepthook = lambda *a: os.write(2, b'hook')\nraise ValueError"), 1),
    "unraisable": (plain("class A:\n    def __del__(self): 1/0\nA()"), 0),
    "atexit fails": (plain("atexit.register(lambda: 1/0)\nctx.exit(3)"), 3),
    "on close": (plain("ctx.call_on_close(lambda: print('closed'))\nctx.exit(3)"), 3),
    "warning": (plain("import warnings\nwarnings.warn('old')\nctx.exit(3)"), 3),
    "binary": (plain("for s in (sys.stdout, sys.stderr):\n    s.buffer.write(bytes(range(256)) * 999)\nctx.exit(3)"), 3),
    "partial line": (plain("sys.stdout.write('no end')\nctx.exit(3)"), 3),
    "interleaved": (plain("for i in range(99):\n    click.echo(i)\n    click.echo(-i, err=True)\nctx.exit(3)"), 3),
    "recursion": (plain("def f(): f()\nsys.setrecursionlimit(80)\nf()"), 1),
    **{
        f"SIG{name}": (plain(DEFAULT.replace("NAME", name)), 128 + number)
        for name, number in SIGNALS.items()
    },
    "SIGKILL": (plain("sys.stdout.flush()\nos.kill(os.getpid(), 9)"), 137),
    "abort()": (plain("sys.stdout.flush()\nos.abort()"), 134),
    "default SIGINT": (plain("os.kill(os.getpid(), signal.SIGINT)\nsignal.pause()"), 1),
    "default SIGTERM": (plain("sys.stdout.flush()\nos.kill(os.getpid(), signal.SIGTERM)"), 143),
    "caught return": (within(CATCHING, "return 5"), 7),
    "caught exit": (within(CATCHING, "ctx.exit(3)"), 7),
    "caught fail": (within(CATCHING, "ctx.fail('no')"), 9),
    "caught abort": (within(CATCHING, "raise click.Abort"), 8),
    "caught exception": (within(CATCHING, "raise RuntimeError('x')"), 8),
    "caught sys.exit": (within(CATCHING, "sys.exit(4)"), 8),
    "caught interrupt": (within(CATCHING, "raise KeyboardInterrupt"), 8),
    "uncaught fail": (within("main(standalone_mode=False)", "ctx.fail('no')"), 1),
    "uncaught interrupt": (within("main(standalone_mode=False)", "raise KeyboardInterrupt"), 1),
    "finally": (within("try:\n    main()\nfinally:\n    print('at last')", "ctx.exit(3)"), 3),
    "SystemExit replaced": (within(AGAIN, "ctx.exit(3)"), 4),
    "main in a function": (within(DEEPER, "raise KeyError('deep')"), 1),
    "make_context": (within(BY_PARTS, "raise KeyError('deep')"), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("way", apps.WAYS)
def test_an_end(name: str, way: str, tmp_path: Path, family: Family) -> None:
    """Status and both streams, to the byte; where the server said nothing on stderr, or ended well, one line more."""
    code, status = ENDS[name]
    argv = apps.write(tmp_path, apps.WAYS[way] + code)
    before = without_addresses(apps.run(argv, cwd=tmp_path))
    after = without_addresses(apps.run(argv, "--daemonize", cwd=tmp_path))

    assert before.status == status
    assert (after.status, after.out) == before[:2]
    if before.err and status:
        assert after.err == before.err
    else:
        assert after.err.startswith(before.err)
        assert OURS.fullmatch(after.err.removeprefix(before.err)), after.err
    family.nobody()


#: What ends before a command begins: arguments, the status, and a word of what is said. Our flag is where it would be typed.
BEFORE = {
    "help": (["{}", "--help"], 0, b"Run in the background"),
    "version": (["{}", "--version"], 0, b"1.2.3"),
    "bad parameter": (["{}", "--port", "x"], 2, b"'x' is not a valid integer"),
    "bad parameter first": (["--port", "x", "{}"], 2, b"'x' is not a valid integer"),
    "no such option": (["{}", "--nope"], 2, b"No such option"),
    "no such argument": (["{}", "word"], 2, b"unexpected extra argument"),
    "value": (["{}", "--port"], 2, b"requires an argument"),
    "callback": (["{}", "--port", "99"], 2, b"not 99"),
    "group": (["--fail", "{}"], 2, b"the group fails"),
    "exit of the group": (["--leave", "{}"], 12, b"the group leaves"),
}
BEGINNING = """
def not_99(ctx, param, value):
    if value == 99:
        raise click.BadParameter('not 99')

@click.group()
@click.option('--fail', is_flag=True)
@click.option('--leave', is_flag=True)
@click.pass_context
def main(ctx, fail, leave):
    if fail:
        ctx.fail('the group fails')
    if leave:
        click.echo('the group leaves')
        ctx.exit(12)

@main.command('serve')
@daemonize_option()
@click.option('--port', type=int, callback=not_99)
@click.version_option('1.2.3')
def command(port):
    click.echo('began')
    sys.exit(44)
main()
"""


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("way", apps.WAYS)
def test_an_end_before_the_command(name: str, way: str, tmp_path: Path, family: Family) -> None:
    """Help, version, wrong arguments: nobody is forked, and not a byte is different. Else the command begins (control)."""
    words, status, said = BEFORE[name]
    of_group = words[0] in {"--fail", "--leave"}
    words = [*words[:1], "serve", *words[1:]] if of_group else ["serve", *words]
    argv = apps.write(tmp_path, apps.WAYS[way] + BEGINNING)
    before, after = (
        apps.run(argv, *[word for word in (w.format(flag) for w in words) if word])
        for flag in ("", "--daemonize")
    )

    assert before == after
    assert before.status == status
    assert said in before.out + before.err
    assert apps.run(argv, "serve", "--daemonize")[:2] == (44, b"began\n")
    family.nobody()


def test_completion(tmp_path: Path, family: Family) -> None:
    """Completion by a shell, with our flag among the words, offers what there is and begins nothing."""
    argv = apps.write(tmp_path, BEGINNING)
    for words, wanted in (
        ("app.py serve --daemonize --p", {"plain,--port", "plain,--pid-file"}),
        ("app.py serve --daem", {"plain,--daemonize"}),
    ):
        done = apps.run(
            argv,
            env={
                "_APP_PY_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
            },
        )
        assert (done.status, done.err) == (0, b"")
        assert set(done.out.decode().split()) == wanted
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_reader_that_has_left(way: str, tmp_path: Path, servers: Family) -> None:
    """`server --daemonize | true`: the server goes on; in the foreground (control) its words are its end."""
    argv = apps.write(tmp_path, apps.WAYS[way] + plain("click.echo('on ' * 9999)\nserve()"))
    statuses = []
    for words in ([], ["--daemonize"]):
        read, write = os.pipe()
        os.close(read)
        statuses.append(apps.run(argv, *words, stdout=write).status)
        os.close(write)

    assert statuses == [1, 0]
    assert servers.only()
