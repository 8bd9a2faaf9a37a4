"""What the documents say about options, statuses, variables and names is so, both ways; the manual pages are well formed."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

import daemonize
from daemonize import errors, listen, notify, outcomes
from daemonize.cli import command, fast, report
from daemonize.cli.command import make_command
from daemonize.cli.options import OPTIONS
from daemonize.launcher import account, environment
from daemonize.option import begin, settings
from daemonize.readiness import FORMS, parse
from tests.support import cli, pages

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAN_PATH = ROOT / "man" / "daemonize.1"
MAN = MAN_PATH.read_text()
SERVERS_PATH = ROOT / "man" / "daemonize.7"
SERVERS = SERVERS_PATH.read_text()
CONTROL_PATH = ROOT / "man" / "daemonctl.1"
SOURCES = "".join(path.read_text() for path in (ROOT / "daemonize").rglob("*.py"))

SECTIONS = [
    "NAME", "SYNOPSIS", "DESCRIPTION", "READINESS", "SOCKETS", "OPTIONS", "EXIT STATUS", "JSON", "ENVIRONMENT", "FILES",
    "SIGNALS", "SECURITY", "EXAMPLES", "COMPATIBILITY", "SEE ALSO",
]  # fmt: skip
SERVERS_SECTIONS = [
    "NAME", "DESCRIPTION", "STREAMS PROTOCOL", "SERVICE MANAGERS", "PYTHON", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES",
    "SEE ALSO",
]  # fmt: skip
#: The options of the C daemonize 1.7.8, as its getopt(3) string has them.
C_LETTERS = "ac:u:p:vo:e:E:l:"


# --- the manual page and the tables of the README, against the code


def functions_of_page(page: str) -> dict[str, set[str]]:
    """The functions that a manual page documents, and the parameters of each."""
    found = (re.fullmatch(r"\\fB([\w.]+)\\fR\((.*)\)", tag) for tag in pages.tags(page, "PYTHON"))
    return {match[1]: set(re.findall(r"\\fI(\w+)\\fR", match[2])) for match in found if match}


def settings_of_page(page: str) -> set[str]:
    """The settings of --daemonize that a manual page documents."""
    names = (tag for tag in pages.tags(page, "PYTHON") if "(" not in tag)
    return {word for tag in names for word in re.findall(r"\w+", re.sub(r"\\f.", "", tag))}


def letters_of_table(page: str) -> set[str]:
    """The options in the first column of the first table of COMPATIBILITY."""
    table = pages.section(page, "COMPATIBILITY").partition("\n.TS\n")[2].partition("\n.TE\n")[0]
    cells = re.findall(r"^(\S.*?)\tT\{$", table, re.MULTILINE)
    return {letter for cell in cells for letter in re.findall(r"\\fB\\-(\w)\\fR", cell)}


def names_of_readme(text: str) -> set[str]:
    """What stands in code marks in the README's section about Python, and is one word."""
    return set(
        re.findall(
            r"`(?:daemonize\.)?(\w+)(?:=\w+|\([^`]*\))?`",
            text.partition("\n## From Python\n")[2].partition("\n## ")[0],
        )
    )


def forms_of_page(page: str) -> set[str]:
    """The readiness specs that a manual page documents."""
    listed = page.partition("\n.SS Which SPEC\n")[0]
    return {form for tag in pages.tags(listed, "READINESS") for form in re.sub(r"\\f.", "", tag).split(", ")}


def forms_of_readme(text: str) -> set[str]:
    """The readiness specs in the first column of the README's table; https is as http."""
    table = text.partition("| spec | ready when |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    return {form for cell in cells for form in re.findall(r"`([a-z][^`]*)`", cell)}


def examples_of_readme(text: str) -> str:
    """What is typed in the README."""
    return "\n".join(re.findall(r"^(?:    |\$ |> )(.*)$", text, re.MULTILINE))


def options_of_readme(text: str) -> set[str]:
    """The options in the first column of the README's table."""
    table = text.partition("\n## Options\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`-.*?) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(--?[\w-]+)", cell)}


def statuses_of_readme(text: str) -> set[str]:
    """The plain statuses in the first column of the README's table."""
    table = text.partition("\n## Exit statuses\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    return {
        number
        for cell in cells
        for number in re.findall(r"(?<![+\d])\d+(?!\d|\+)", cell)
        if int(number) < 128
    }


def real_options() -> set[str]:
    """Every option of the command, by every name, those that click adds included."""
    command = make_command()
    parameters = command.get_params(click.Context(command))
    return {name for option in parameters if isinstance(option, click.Option) for name in option.opts}


def real_statuses() -> set[str]:
    """Every plain exit status that the errors have, and success; that of unknown daemons is of daemonctl only."""
    numbers = {value for name, value in vars(errors).items() if name.startswith("STATUS_")}
    return {"0"} | {str(number) for number in numbers - {errors.STATUS_SIGNAL, errors.STATUS_UNKNOWN}}


def real_variables() -> set[str]:
    """Every environment variable that the command reads, sets or removes; not what is between others and servers."""
    somebody = account.Account(0, 0, [], "name", "/home")
    found = {
        *(option.envvar for option in OPTIONS if option.envvar),
        *re.findall(r"\bDAEMONIZE_[A-Z]+(?:_[A-Z]+)*\b", SOURCES),
        *re.findall(r"(?<!\bfields)\.get\(b\"([A-Z_]+)\"", SOURCES),
        *(name.decode() for name in somebody.variables),
        *(name.decode() for name in environment._REMOVED),
        *(f"{prefix.decode()}*" for prefix in environment._REMOVED_PREFIXES),
    }
    return found - {begin.MARK, notify.NAME.decode()}


def servers_variables() -> set[str]:
    """Every environment variable of a server, by which it is told whom to tell, and what it is."""
    names = (*notify._SERVERS_OWN, notify.ID, notify.NAME, *listen.VARIABLES)
    return {name.decode() for name in names} | {begin.MARK}


def real_functions() -> dict[str, set[str]]:
    """The functions for servers, and the parameters of each."""
    room = inspect.getsource(notify).partition("# --- for servers ---")[2].partition("\n# --- ")[0]
    names = ["ready", "listen_fds", "listen_fds_with_names"]
    names += ["daemonize_option", "add_daemonize_arguments", "daemonize_if_asked"]
    functions = {name: getattr(daemonize, name) for name in names}
    functions |= {
        f"notify.{name}": getattr(notify, name) for name in re.findall(r"^def (\w+)", room, re.MULTILINE)
    }
    return {name: set(inspect.signature(function).parameters) for name, function in functions.items()}


def real_settings() -> set[str]:
    """The keywords that both forms of --daemonize take."""
    return set(settings.Given.__annotations__)


def real_keys() -> set[str]:
    """Every key that a report of --json can have."""
    failure = outcomes.Lost()
    failure.survivors = [(1, "init")]
    return {*json.loads(report.json_line([], failure)), *report._FACTS}


def real_forms() -> set[str]:
    """The forms of readiness specs."""
    return {form for form, _, _ in FORMS}


def real_names() -> set[str]:
    """The keywords of launch() and context(), and the public names of the package."""
    functions = (daemonize.launch, daemonize.context)
    keywords = {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return keywords | set(daemonize.__all__)


def test_the_page_has_exactly_the_sections_that_a_reader_expects() -> None:
    """In the order of man-pages(7)."""
    assert pages.sections(MAN) == SECTIONS
    assert pages.sections(SERVERS) == SERVERS_SECTIONS


def test_the_page_documents_exactly_the_variables_there_are() -> None:
    """Those that are read, those that are set and those that are removed; on the servers' page those of servers."""
    assert pages.variables(MAN) == real_variables()
    assert pages.variables(SERVERS) == servers_variables()


def test_the_page_for_servers_documents_exactly_the_functions_there_are() -> None:
    """With exactly the parameters of each."""
    assert functions_of_page(SERVERS) == real_functions()


def test_the_page_for_servers_documents_exactly_the_settings_there_are() -> None:
    """Those of daemonize_option() and daemonize_if_asked()."""
    assert settings_of_page(SERVERS) == real_settings()


def test_the_page_for_servers_has_every_status_of_the_option() -> None:
    """All of the command's: the option launches as it does."""
    assert pages.statuses(SERVERS) == {"0", "1", "2", "75", "124", "125", "126, 127", "N, 128+N"}
    assert real_statuses() == {"0", "1", "2", "75", "124", "125", "126", "127"}


def test_the_page_documents_exactly_the_keys_of_json() -> None:
    """Those of every report, and those of failures."""
    assert pages.keys(pages.section(MAN, "JSON")) == real_keys()


def test_the_table_of_compatibility_has_every_letter() -> None:
    """Every option of the C daemonize, no other; and each exists."""
    letters = set(C_LETTERS.replace(":", ""))

    assert letters_of_table(MAN) == letters
    assert {f"-{letter}" for letter in letters} <= real_options()


def test_the_readme_names_every_keyword_and_every_public_name() -> None:
    """Whatever `launch()` takes and the package exports is told in the section about Python."""
    assert real_names() <= names_of_readme(README)


def test_the_page_documents_exactly_the_forms_of_specs_there_are() -> None:
    """And so do the README's table and the help of --ready."""
    assert forms_of_page(MAN) == real_forms()
    assert forms_of_readme(README) == real_forms() - {"https://HOST[:PORT][/PATH]"} | {"https://…"}
    ready = next(option for option in OPTIONS if option.dest == "ready")
    listed = ready.help.partition("all must hold: ")[2].rstrip(".").replace(" (default)", "").split(", ")
    assert sorted(listed) == sorted(real_forms())


@pytest.mark.parametrize(
    "text",
    [pages.examples(MAN), pages.examples(SERVERS), examples_of_readme(README)],
    ids=["man1", "man7", "README"],
)
def test_every_command_line_is_one_that_the_command_takes(text: str) -> None:
    """Its options exist, and its specs can be."""
    lines = pages.command_lines(text, "daemonize")

    assert lines
    for words in lines:
        given = fast.parse(words) or command.parse(words)
        assert isinstance(given, tuple), words
        specs = given[0].get("ready", ())
        assert isinstance(specs, (list, tuple))
        for spec in specs:
            parse(spec.replace("{port}", "8080"))  # of a socket of --listen


def test_the_words_of_a_command_line_are_read() -> None:
    """Negative control: quotes, a continued line, and what comes after the command."""
    text = (
        "daemonize -r log:'a b' \\\n    ./x 'c; d' >&2 && ./y\n$ sudo daemonize z; echo\nanother daemonize\n"
    )

    assert pages.command_lines(text, "daemonize") == [["-r", "log:a b", "./x", "c; d"], ["z"]]


def test_the_page_documents_exactly_the_options_there_are() -> None:
    """No option without its paragraph, no paragraph without its option."""
    assert pages.options(pages.section(MAN, "OPTIONS")) == real_options()


def test_the_page_documents_exactly_the_statuses_there_are() -> None:
    """The statuses of the errors, the server's own, and those of signals."""
    assert pages.statuses(MAN) == real_statuses() | {"N", "128+N"}


def test_the_readme_lists_exactly_the_options_there_are() -> None:
    """The short list is complete as well."""
    assert options_of_readme(README) == real_options()


def test_the_readme_lists_exactly_the_statuses_there_are() -> None:
    """So is the list of statuses."""
    assert statuses_of_readme(README) == real_statuses()


def test_a_missing_and_an_invented_name_are_both_seen() -> None:
    """Negative control: the comparisons above read what is written, not what ought to be."""
    page = (
        MAN.replace("\\fB\\-\\-strict\\fR", "\\fB\\-\\-stricter\\fR")
        .replace("\\fB\\-\\-nocore\\fR", "\\fB\\-\\-corenot\\fR")
        .replace("\n\\fB124\\fR\n", "\n\\fB123\\fR\n")
        .replace("\n.B DAEMONIZE_ID\n", "\n.B DAEMONIZE_NO\n")
        .replace("\n\\fB\\-u\\fR\tT{\n", "\n\\fB\\-x\\fR\tT{\n")
        .replace('"\\fIpid_file\\fR"', '"\\fIpidfile\\fR"')
        .replace("\n.SH SECURITY\n", "\n.SH SAFETY\n")
        .replace("\n\\fBlog:\\fIREGEX\\fR\n", "\n\\fBlog:\\fIGLOB\\fR\n")
    )
    text = README.replace("| `--strict` |", "| `--stricter` |").replace("| 124 |", "| 123 |")
    text = text.replace("`keep_fds`", "`keep`").replace("| `unix:PATH` |", "| `unix:NAME` |")

    assert pages.options(pages.section(page, "OPTIONS")) ^ real_options() == {
        "--strict",
        "--stricter",
        "--nocore",
        "--corenot",
    }
    assert pages.statuses(page) ^ real_statuses() == {"123", "124", "N", "128+N"}
    assert pages.variables(page) ^ real_variables() == {"DAEMONIZE_ID", "DAEMONIZE_NO"}
    assert pages.keys(pages.section(page, "JSON")) ^ real_keys() == {"pid_file", "pidfile"}
    assert forms_of_page(page) ^ real_forms() == {"log:REGEX", "log:GLOB"}
    assert letters_of_table(page) ^ letters_of_table(MAN) == {"u", "x"}
    assert set(pages.sections(page)) ^ set(SECTIONS) == {"SECURITY", "SAFETY"}
    assert real_names() - names_of_readme(text) == {"keep_fds"}
    assert forms_of_readme(text) ^ forms_of_readme(README) == {"unix:PATH", "unix:NAME"}
    assert options_of_readme(text) ^ real_options() == {"--strict", "--stricter"}
    assert statuses_of_readme(text) ^ real_statuses() == {"123", "124"}


def test_a_missing_and_an_invented_name_are_seen_on_the_page_for_servers() -> None:
    """Negative control, likewise."""
    page = (
        SERVERS.replace("\\fBnotify.stopping\\fR()", "\\fBnotify.stop\\fR()")
        .replace("\\fBready\\fR(\\fIstatus\\fR", "\\fBready\\fR(\\fItext\\fR")
        .replace("\n\\fIstop_timeout\\fR\n", "\n\\fIstop_time\\fR\n")
        .replace("\n.B NOTIFY_FD\n", "\n.B NOTIFY_ME\n")
    )
    functions, real = functions_of_page(page), real_functions()

    assert functions.keys() ^ real.keys() == {"notify.stop", "notify.stopping"}
    assert functions["ready"] ^ real["ready"] == {"status", "text"}
    assert settings_of_page(page) ^ real_settings() == {"stop_timeout", "stop_time"}
    assert pages.variables(page) ^ servers_variables() == {"NOTIFY_FD", "NOTIFY_ME"}


def test_every_page_is_installed() -> None:
    """The wheel puts each manual page where man(1) looks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]

    assert installed == {
        f"man/{page.name}": f"share/man/man{page.suffix[1:]}/{page.name}" for page in (ROOT / "man").iterdir()
    }


# --- the manual page as it is formatted


def complaints(path: Path) -> str:
    """What man and groff have to say about a page."""
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    formatter = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(path)]
    done = subprocess.run(
        formatter, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.stderr if done.returncode == 0 else f"man exited with {done.returncode}: {done.stderr}"


def too_wide(path: Path) -> list[str]:
    """The lines of a page, formatted for 80 columns, that are longer."""
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    formatter = ["man", "-E", "UTF-8", "-P", "cat", "-l", str(path)]
    done = subprocess.run(
        formatter, stdout=subprocess.PIPE, text=True, check=True, env=cli.environ({"MANWIDTH": "80"})
    )
    return [line for line in done.stdout.splitlines() if len(line) > 80]


each_page = pytest.mark.parametrize(
    "page", [MAN_PATH, SERVERS_PATH, CONTROL_PATH], ids=lambda page: page.name
)


@each_page
def test_the_page_fits_80_columns(page: Path) -> None:
    """No table and no example runs over the edge of a terminal."""
    assert too_wide(page) == []


@each_page
def test_the_page_formats_without_a_warning(page: Path) -> None:
    """Groff accepts every macro and every character."""
    assert complaints(page) == ""


def test_a_line_that_is_too_wide_is_seen(tmp_path: Path) -> None:
    """Negative control: an example is not broken."""
    page = tmp_path / "wide.1"
    page.write_text(f"{MAN}.PP\n.EX\n{'x' * 90}\n.EE\n")

    assert len(too_wide(page)) == 1


def test_a_warning_is_seen(tmp_path: Path) -> None:
    """Negative control: an unknown macro is complained about."""
    page = tmp_path / "bad.1"
    page.write_text(MAN + ".NOSUCH macro\n")

    assert "NOSUCH" in complaints(page)
