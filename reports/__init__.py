"""A run's folder -> report.html and tables, from a record (results.json) and images/*.png alone; a comparison or
a leaderboard -> its page and tables.

Importing this package loads no template and no matplotlib: that happens when something is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakbench.bench.comparison import Comparison
    from leakbench.bench.leaderboard.board import Leaderboard
    from leakbench.records import RecordFiles, RunRecord

__all__ = ["write_comparison", "write_leaderboard", "write_report", "write_tables"]


def write_report(run: Path, record_files: RecordFiles | None = None) -> Path:
    """Write ``run``/report.html and, beside it, the tables of :func:`write_tables`; returns the page's path.

    The page is one file that asks nothing of any network. The same records and images give the same bytes.
    ``record_files`` says which record: results.json, or another one of the folder, whose page and tables have names of
    their own. Raises UsageError where ``run`` holds no such record that this version understands, StoreError where
    the folder can't be written.
    """
    from leakbench.records import COMPLETE
    from leakbench.reports import files, html

    record_files = record_files or COMPLETE
    record = files.read_record(run, record_files)
    write_tables(record, run, record_files)
    return files.write_text(run / record_files.page, html.render(record, run, record_files))


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write ``out``/comparison.html and, beside it, comparison.json, .csv, .md and .tex; returns the page's path.

    The page is one file that asks nothing of any network. The same comparison gives the same bytes. StoreError where
    the folder can't be written.
    """
    from leakbench.reports import comparison_page, comparison_tables, files

    page = comparison_page.render(comparison)
    files.make_folder(out)
    files.write_text(out / files.COMPARISON, comparison.model_dump_json(indent=1))
    files.write_text(out / "comparison.csv", comparison_tables.csv_text(comparison))
    files.write_text(out / "comparison.md", comparison_tables.markdown_text(comparison))
    files.write_text(out / "comparison.tex", comparison_tables.latex_text(comparison))
    return files.write_text(out / "comparison.html", page)


def write_leaderboard(leaderboard: Leaderboard, out: Path) -> Path:
    """Write ``out``/index.html and leaderboard.json; returns the page's path.

    The page is one file that asks nothing of any network. The same entries give the same bytes. StoreError where the
    folder can't be written.
    """
    from leakbench.reports import files, leaderboard_page

    page = leaderboard_page.render(leaderboard)
    files.make_folder(out)
    files.write_text(out / files.LEADERBOARD, leaderboard.model_dump_json(indent=1))
    return files.write_text(out / "index.html", page)


def write_tables(record: RunRecord, run: Path, record_files: RecordFiles | None = None) -> None:
    """Write ``run``/results.csv (one row a value), results.md (the report's tables) and results.tex (a paper's)."""
    from leakbench.records import COMPLETE
    from leakbench.reports import files, tables

    stem = (record_files or COMPLETE).tables
    files.write_text(run / f"{stem}.csv", tables.csv_text(record))
    files.write_text(run / f"{stem}.md", tables.markdown_text(record))
    files.write_text(run / f"{stem}.tex", tables.latex_text(record))
