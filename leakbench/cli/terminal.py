"""What reaches the terminal: text of others is shown in one line, and nothing in it is obeyed."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import textwrap
from collections.abc import Sequence

import typer

from leakbench.errors import printable

_INTERVAL = re.compile(r"\S+ \[[-−+.\d]+×?, [-−+.\d]+×?\]")
"""as in .71 [.61, .79] and +6.28× [+5.00×, +7.56×]"""
_WIDEST_NAME = 24
"""characters of a column that others are aligned behind: what is longer has its text on the next line"""


def echo(text: object, *, err: bool = False, bold: bool = False) -> None:
    """Print one line, on the error stream with ``err``; see :func:`leakbench.errors.printable`."""
    line = printable(str(text))
    typer.echo(typer.style(line, bold=True) if bold else line, err=err)


def columns() -> int:
    """The width of $COLUMNS or of the terminal, which the error stream may be where the output is a pipe; or 80."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # no terminal; no file at all
            width = os.get_terminal_size(stream.fileno()).columns
            break
    else:
        width = 80
    given = os.environ.get("COLUMNS", "")
    return max(int(given) if given.isdecimal() else width, 40)


def wrapped(text: str, first: str = "", indent: str = "") -> list[str]:
    """The text in lines that fit, behind ``first`` and then ``indent``; words and values with intervals stay whole."""
    kept = _INTERVAL.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        kept,
        columns(),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines] or [first]


def echo_rows(rows: Sequence[Sequence[str]], margin: str = "  ") -> None:
    """Print a table, a row of texts a line; the last column is prose and goes on below itself."""
    shown = [[printable(text) for text in row] for row in rows]
    widths = [
        max((len(row[i]) for row in shown if len(row[i]) <= _WIDEST_NAME), default=0)
        for i in range(len(shown[0]) - 1 if shown else 0)
    ]
    indent = " " * (len(margin) + sum(widths) + 2 * len(widths))
    if len(indent) > columns() // 2:
        indent = " " * 6
    for *names, text in shown:
        head = margin + "".join(f"{name:<{width}}  " for name, width in zip(names, widths, strict=True))
        if len(head) > len(indent):  # too long a name
            typer.echo(head.rstrip())
            head = indent
        for line in wrapped(text, head, indent):
            typer.echo(line.rstrip())


def echo_wrapped(before: str, word: str, after: str) -> None:
    """Print a text in lines that fit, with one bold word in it."""
    before, after = printable(before), printable(after)
    text = "\n".join(wrapped(f"{before}{word}{after}"))
    head, emphasised, tail = text[: len(before)], *text[len(before) :].partition(word)[1:]
    typer.echo(head + typer.style(emphasised, bold=True) + tail)


def echo_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; where it is wider than the terminal, a block for each column but the first.

    Nothing in it is broken: a value that does not fit beside its name stands below it.
    """
    head, *lines = ([printable(text) for text in line] for line in (headings, *rows))
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    if sum(widths) + 2 * (len(widths) - 1) <= columns():
        for number, line in enumerate((head, *lines)):
            text = "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            typer.echo(typer.style(text, bold=True) if number == 0 else text)
        return
    for column in range(1, len(head)):
        typer.echo(typer.style(head[column], bold=True))
        beside = 2 + widths[0] + 2 + widths[column] <= columns()
        for name, value in ((line[0], line[column]) for line in lines):
            indent = "  " if 2 + len(name) <= columns() else ""
            typer.echo(f"  {name:<{widths[0]}}  {value}" if beside else f"{indent}{name}\n    {value}")


class Once(logging.Filter):
    """Lets a message through the first time: what is wrong in every cell of a run is said once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


class LineFormatter(logging.Formatter):
    """A record of the log in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
