"""``leakbench report``: write a run's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakbench.cli.options import checked
from leakbench.cli.terminal import echo


def report(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run (holds results.json).", show_default=False, callback=checked)
    ],
) -> None:
    """Write RUN/report.html and the tables again from RUN/results.json, without computing anything."""
    from leakbench.reports import write_report

    echo(write_report(run))
