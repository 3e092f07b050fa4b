"""What reaches the terminal: text of others is shown in one line, and nothing in it is obeyed."""

from __future__ import annotations

import logging

import typer

from leakbench.errors import printable


def echo(text: object, *, err: bool = False, bold: bool = False) -> None:
    """Print one line, on the error stream with ``err``; see :func:`leakbench.errors.printable`."""
    line = printable(str(text))
    typer.echo(typer.style(line, bold=True) if bold else line, err=err)


class LineFormatter(logging.Formatter):
    """A record of the log in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
