"""``leakbench leaderboard``: the entries in a folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakbench.cli.options import checked
from leakbench.cli.terminal import echo, echo_table
from leakbench.errors import UsageError

if TYPE_CHECKING:
    from leakbench.bench.leaderboard.board import Row


def leaderboard(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder of entries, all files *.json below it.",
            show_default=False,
            callback=checked,
            metavar="DIR",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Folder of the page.", callback=checked),
    ] = Path("runs/leaderboard"),
) -> None:
    """Rank the entries of `leakbench export --entry`: one page, a table for each protocol.

    The worst known value of a defence counts, over all entries of it and of attacks that break it. What may not be
    compared stands apart without a rank. Beside index.html lies leaderboard.json.

    `leakbench leaderboard leaderboard --out page`

    Exit status: 0, or 1 when a file is no entry (a line on the error stream; the page has the others), or 2.
    """
    from leakbench.bench.leaderboard.board import leaderboard as board_of
    from leakbench.bench.leaderboard.files import entry_files
    from leakbench.reports import write_leaderboard
    from leakbench.reports.files import holds_leaderboard

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not holds_leaderboard(out))):
        raise UsageError(f"--out {str(out)!r} is not empty and holds no leaderboard: choose another folder")
    files, refused = entry_files(folder, out)
    made, left_out = board_of(files)
    page = write_leaderboard(made, out)
    for board in made.boards:
        echo(f"{board.protocol} (1 leaks least):", bold=True)
        echo_table(("rank", "defense", "leakage index", "attack"), [_line(row) for row in (*board.ranked, *board.open)])
    echo(f"leaderboard: {page}")
    for line in (*refused, *left_out):
        echo(f"leakbench: {line}", err=True)
    if refused or left_out:
        raise typer.Exit(1)


def _line(row: Row) -> tuple[str, str, str, str]:
    from leakbench.reports.leaderboard_page import number_of
    from leakbench.reports.ranking import rank_text

    index = number_of("share", row.worst.index if row.worst else None)
    mark = " (unreliable)" if row.unreliable else ""
    label = f"{row.label}{mark}"
    return rank_text(row.rank), label, f"{index.text} {index.bounds}".rstrip(), row.worst.attack if row.worst else "–"
