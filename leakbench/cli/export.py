"""``leakbench export``: a run or a comparison as a table for papers, spreadsheets and programs."""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakbench.cli.options import checked
from leakbench.errors import UsageError, printable

if TYPE_CHECKING:
    import pandas as pd

    from leakbench.bench.comparison import Comparison
    from leakbench.records import RunRecord


class Shape(StrEnum):
    """How a table is laid out."""

    wide = "wide"
    long = "long"


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|COMPARISON",
            help="The folder of a run (holds results.json) or of a comparison (comparison.json).",
            show_default=False,
            callback=checked,
        ),
    ],
    latex: Annotated[bool, typer.Option("--latex", help="One table for a paper, with booktabs.")] = False,
    csv: Annotated[
        Shape | None,
        typer.Option(
            "--csv",
            help="long: one row a measured value, or a pair of compared defences. wide: one row a defence, attack and "
            "seed with its metrics as columns, or a compared defence.",
            show_default=False,
        ),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(
            "--parquet",
            metavar="FILE",
            help="The long table with its types. Texts are not escaped, while CSV protects spreadsheets from formulas.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where LaTeX or CSV goes. Default: standard output.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
) -> None:
    """Write the table of a run or a comparison, without computing anything: --latex, --csv or --parquet."""
    if latex + (csv is not None) + (parquet is not None) != 1:
        raise UsageError("export writes one format: give one of --latex, --csv wide|long and --parquet FILE")
    if parquet and out:
        raise UsageError("--parquet names its file: leave out --out")
    from leakbench.reports.files import RECORDS, read_either

    for path in (parquet, out):
        if path and path.name in RECORDS:
            raise UsageError(f"{str(path)!r} would take the place of a record: choose another name")
    if parquet:
        _need_pyarrow()
    record = read_either(source)
    if parquet:
        _write_parquet(record, parquet)
    else:
        _write_text(_csv(record, csv) if csv else _latex(record), out)


def _write_parquet(record: RunRecord | Comparison, path: Path) -> None:
    from leakbench.runtime.files import write_file

    content = io.BytesIO()
    _long(record).to_parquet(content, engine="pyarrow", index=False)
    write_file(path, content.getvalue())


def _write_text(text: str, out: Path | None) -> None:
    """To the file, else to standard output, where a terminal gets no control characters."""
    from leakbench.runtime.files import write_file

    if out:
        write_file(out, text.encode())
    elif sys.stdout.isatty():
        typer.echo("\n".join(map(printable, text.split("\n"))), nl=False)
    else:
        typer.echo(text.encode(), nl=False)


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError("--parquet needs pyarrow: pip install 'leakbench[parquet]'") from None


def _long(record: RunRecord | Comparison) -> pd.DataFrame:
    from leakbench.records import RunRecord
    from leakbench.reports import frames

    return frames.long_frame(record) if isinstance(record, RunRecord) else frames.pairs_frame(record)


def _csv(record: RunRecord | Comparison, shape: Shape) -> str:
    from leakbench.records import RunRecord
    from leakbench.reports import comparison_tables, frames, tables

    if shape is Shape.wide:
        wide = frames.wide_frame(record) if isinstance(record, RunRecord) else frames.defenses_frame(record)
        return frames.as_csv(wide)
    return tables.csv_text(record) if isinstance(record, RunRecord) else comparison_tables.csv_text(record)


def _latex(record: RunRecord | Comparison) -> str:
    from leakbench.records import RunRecord
    from leakbench.reports import comparison_tables, tables

    return tables.latex_text(record) if isinstance(record, RunRecord) else comparison_tables.latex_text(record)
