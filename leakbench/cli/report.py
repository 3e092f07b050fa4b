"""``leakbench report``: write a run's report again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakbench.cli.options import checked
from leakbench.cli.terminal import echo


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="The folder of a run (holds results.json).", metavar="RUN", show_default=False, callback=checked
        ),
    ],
) -> None:
    """Write RUN/report.html and the tables again from RUN/results.json, without computing anything.

    Where a later run broke off or failed, its own record (RUN/results.partial.json) has a page and tables, too.
    """
    from leakbench.bench.run_folder import records_in
    from leakbench.records import COMPLETE
    from leakbench.reports import write_report

    for files in records_in(run) or [COMPLETE]:
        echo(write_report(run, files))
