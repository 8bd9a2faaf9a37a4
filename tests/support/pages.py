"""Manual pages of ours, as text: their sections, the tags of their paragraphs, what is typed in their examples."""

from __future__ import annotations

import itertools
import re
import shlex


def section(page: str, title: str) -> str:
    """The text of one section of a manual page."""
    return re.split(r"^\.SH ", page.partition(f"\n.SH {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def tags_of(text: str) -> list[str]:
    """The tags of the paragraphs in a part of a page: the line after each .TP, roff's hyphens made plain."""
    found = re.findall(r"^\.TP\n(.*)", text, re.MULTILINE)
    return [re.sub(r"^\.\w+ ", "", tag).replace("\\-", "-") for tag in found]


def tags(page: str, title: str) -> list[str]:
    """The tags of a section's paragraphs."""
    return tags_of(section(page, title))


def options(text: str) -> set[str]:
    """The options that a part of a page documents."""
    return {name for tag in tags_of(text) for name in re.findall(r"\\fB(--?[\w-]+)\\fR", tag)}


def statuses(page: str) -> set[str]:
    """The exit statuses that a manual page documents: `0`, `124`, `N`, `128+N`."""
    return {re.sub(r"\\f[BIR]", "", tag) for tag in tags(page, "EXIT STATUS")}


def sections(page: str) -> list[str]:
    """The titles of the sections, in order."""
    return re.findall(r"^\.SH (.+)$", page, re.MULTILINE)


def variables(page: str) -> set[str]:
    """The environment variables that a manual page documents; `X_*` for all that begin with `X_`."""
    return {name for tag in tags(page, "ENVIRONMENT") for name in re.findall(r"\b[A-Z][A-Z_]+\*?", tag)}


def keys(text: str) -> set[str]:
    """The keys of --json that a part of a page documents."""
    return set(re.findall(r'^\.IP "\\fI(\w+)\\fR" 12$', text, re.MULTILINE))


def examples(page: str) -> str:
    """The examples of a manual page, as they are typed."""
    blocks = re.findall(r"^\.EX\n(.*?)^\.EE$", page, re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\-", "-").replace("\\e\n", "\\\n").replace("\\(aq", "'")


def command_lines(text: str, command: str) -> list[list[str]]:
    """The words after every `command` that begins a line, up to its end; continued lines are joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    start = rf"^(?:\$ )?(?:sudo )?(?:/opt/daemonize/bin/)?{command} +(\S.*)$"
    return [words_of(line) for line in re.findall(start, joined, re.MULTILINE)]


def words_of(line: str) -> list[str]:
    """The words of the first simple command of a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>()")
    lexer.whitespace_split = True
    return list(itertools.takewhile(lambda word: not set(word) <= set("&|;<>()"), lexer))
