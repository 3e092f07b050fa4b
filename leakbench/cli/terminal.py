"""What reaches the terminal: text of others is shown in one line, and nothing in it is obeyed."""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap
from collections.abc import Sequence

import typer

from leakbench.errors import printable

_WIDEST_NAME = 24
"""characters of a column that others are aligned behind: what is longer has its text on the next line"""


def echo(text: object, *, err: bool = False, bold: bool = False) -> None:
    """Print one line, on the error stream with ``err``; see :func:`leakbench.errors.printable`."""
    line = printable(str(text))
    typer.echo(typer.style(line, bold=True) if bold else line, err=err)


def columns() -> int:
    """The width of the terminal or of $COLUMNS; lines for a pipe without it are as long as they are."""
    found = shutil.get_terminal_size((0, 0)).columns
    return max(found, 40) if found else sys.maxsize


def wrapped(text: str, indent: str = "") -> list[str]:
    """The text in lines that fit where there are blanks to break at, all but the first one indented."""
    if len(text) <= columns():
        return [text]
    return textwrap.wrap(
        text,
        columns(),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def echo_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print a table, a row of texts a line; the last column is prose and goes on below itself."""
    shown = [[printable(text) for text in row] for row in rows]
    widths = [
        max((len(row[i]) for row in shown if len(row[i]) <= _WIDEST_NAME), default=0)
        for i in range(len(shown[0]) - 1 if shown else 0)
    ]
    indent = " " * (2 + sum(widths) + 2 * len(widths))
    if len(indent) > columns() // 2:
        indent = " " * 6
    for *names, text in shown:
        head = "  " + "".join(f"{name:<{width}}  " for name, width in zip(names, widths, strict=True))
        if len(head) <= len(indent):
            lines = wrapped(f"{'':<{len(head)}}{text}", indent)
            lines[0] = head + lines[0][len(head) :]
        else:  # too long a name
            lines = [head.rstrip(), *wrapped(indent + text, indent)]
        for line in lines:
            typer.echo(line.rstrip())


class LineFormatter(logging.Formatter):
    """A record of the log in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
