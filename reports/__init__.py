"""A run's folder -> report.html and tables, from results.json and images/*.png alone.

Importing this package loads no template and no matplotlib: that happens when something is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakbench.bench.records import RunRecord

__all__ = ["write_report", "write_tables"]


def write_report(run: Path) -> Path:
    """Write ``run``/report.html and, beside it, the tables of :func:`write_tables`; returns the page's path.

    The page is one file that asks nothing of any network. The same records and images give the same bytes.
    Raises UsageError where ``run`` holds no results.json that this version understands, StoreError where
    the folder can't be written.
    """
    from leakbench.reports import files, html

    record = files.read_record(run)
    write_tables(record, run)
    return files.write_text(run / "report.html", html.render(record, run))


def write_tables(record: RunRecord, run: Path) -> None:
    """Write ``run``/results.csv (one row a value), results.md and results.tex (the tables of the report)."""
    from leakbench.reports import files, tables

    files.write_text(run / "results.csv", tables.csv_text(record))
    files.write_text(run / "results.md", tables.markdown_text(record))
    files.write_text(run / "results.tex", tables.latex_text(record))
