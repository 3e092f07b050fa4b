"""``leakbench report``: write a run's report again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from leakbench.cli.options import checked
from leakbench.cli.terminal import echo
from leakbench.errors import StoreError, UsageError


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="The folder of a run (holds results.json), or its bundle (.zip).",
            metavar="RUN",
            show_default=False,
            callback=checked,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Of a bundle: the new folder that it is unpacked to.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
) -> None:
    """Write RUN/report.html and the tables again from RUN/results.json, without computing anything.

    Where a later run broke off or failed, its own record (RUN/results.partial.json) has a page and tables, too.
    A bundle is unpacked to --out, and the report written there.
    """
    from leakbench.bench.bundle import is_bundle, opened
    from leakbench.bench.run_folder import records_in
    from leakbench.records import COMPLETE
    from leakbench.reports import write_report

    if is_bundle(run) != (out is not None):
        which = "a bundle needs one, a new folder for the report" if out is None else "it is of bundles, RUN is none"
        raise UsageError(f"--out: {which}")
    if out and out.exists():
        raise UsageError(f"--out {str(out)!r} is there already: choose a new folder")
    with opened(run) as folder:
        pages = [write_report(folder, files) for files in records_in(folder) or [COMPLETE]]
        if out:
            _copy(folder, out)
            pages = [out / page.name for page in pages]
    for page in pages:
        echo(page)


def _copy(folder: Path, out: Path) -> None:
    try:
        out.mkdir(parents=True)
        try:
            shutil.copytree(folder, out, dirs_exist_ok=True)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)  # half a folder would refuse the next try
            raise
    except shutil.Error as error:  # of the first file: from, to, why
        raise StoreError(f"--out {str(out)!r} can't be written: {error.args[0][0][-1]}") from None
    except OSError as error:
        raise StoreError(f"--out {str(out)!r} can't be written: {error.strerror}") from None
