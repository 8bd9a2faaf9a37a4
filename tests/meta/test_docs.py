"""What the documents say about options and exit statuses is so, both ways; the manual page is well formed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from daemonize import errors
from daemonize.cli.command import make_command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAN_PATH = ROOT / "man" / "daemonize.1"
MAN = MAN_PATH.read_text()


# --- the manual page and the tables of the README, against the code


def section(page: str, title: str) -> str:
    """The text of one section of a manual page."""
    return re.split(r"^\.SH ", page.partition(f"\n.SH {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def tags(page: str, title: str) -> list[str]:
    """The tags of the section's paragraphs: the line after each .TP, roff's hyphens made plain."""
    return [tag.replace("\\-", "-") for tag in re.findall(r"^\.TP\n(.*)", section(page, title), re.MULTILINE)]


def options_of_page(page: str) -> set[str]:
    """The options that a manual page documents."""
    return {name for tag in tags(page, "OPTIONS") for name in re.findall(r"\\fB(--?[\w-]+)\\fR", tag)}


def statuses_of_page(page: str) -> set[str]:
    """The exit statuses that a manual page documents: `0`, `124`, `N`, `128+N`."""
    return {re.sub(r"\\f[BIR]", "", tag) for tag in tags(page, "EXIT STATUS")}


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
    """Every plain exit status that the errors have, and success."""
    numbers = {value for name, value in vars(errors).items() if name.startswith("STATUS_")}
    return {"0"} | {str(number) for number in numbers - {errors.STATUS_SIGNAL}}


def test_the_page_documents_exactly_the_options_there_are() -> None:
    """No option without its paragraph, no paragraph without its option."""
    assert options_of_page(MAN) == real_options()


def test_the_page_documents_exactly_the_statuses_there_are() -> None:
    """The statuses of the errors, the server's own, and those of signals."""
    assert statuses_of_page(MAN) == real_statuses() | {"N", "128+N"}


def test_the_readme_lists_exactly_the_options_there_are() -> None:
    """The short list is complete as well."""
    assert options_of_readme(README) == real_options()


def test_the_readme_lists_exactly_the_statuses_there_are() -> None:
    """So is the list of statuses."""
    assert statuses_of_readme(README) == real_statuses()


def test_a_missing_and_an_invented_name_are_both_seen() -> None:
    """Negative control: the comparisons above read what is written, not what ought to be."""
    page = MAN.replace("\\fB\\-\\-strict\\fR", "\\fB\\-\\-stricter\\fR").replace(
        "\n\\fB124\\fR\n", "\n\\fB123\\fR\n"
    )
    text = README.replace("| `--strict` |", "| `--stricter` |").replace("| 124 |", "| 123 |")

    assert options_of_page(page) ^ real_options() == {"--strict", "--stricter"}
    assert statuses_of_page(page) ^ real_statuses() == {"123", "124", "N", "128+N"}
    assert options_of_readme(text) ^ real_options() == {"--strict", "--stricter"}
    assert statuses_of_readme(text) ^ real_statuses() == {"123", "124"}


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


def test_the_page_formats_without_a_warning() -> None:
    """Groff accepts every macro and every character."""
    assert complaints(MAN_PATH) == ""


def test_a_warning_is_seen(tmp_path: Path) -> None:
    """Negative control: an unknown macro is complained about."""
    page = tmp_path / "bad.1"
    page.write_text(MAN + ".NOSUCH macro\n")

    assert "NOSUCH" in complaints(page)
