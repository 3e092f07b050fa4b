"""What goes into a bundle of a run: its record, and what is made of it."""

from __future__ import annotations

from pathlib import Path

from leakbench.bench.bundle import write_bundle
from leakbench.bench.run_folder import slug
from leakbench.errors import UsageError
from leakbench.records import COMPLETE, RunRecord
from leakbench.reports import html
from leakbench.reports.files import read_record
from leakbench.reports.images import content
from leakbench.reports.tables import csv_text


def bundle_run(run: Path, out: Path) -> Path:
    """Write the run in the folder ``run`` as a zip: results.json, grid.json, report.html, results.csv and the pictures
    that the record names, in one folder of the run's name. Nothing else of the folder is read.

    UsageError where it holds no run, DataError where a picture is missing, too large or lies elsewhere, StoreError
    where ``out`` can't be written.
    """
    record = read_record(run)
    grid = run / "grid.json"
    if not grid.is_file():
        raise UsageError(f"{grid} is missing: give the folder of a run")
    files = {
        COMPLETE.record: (run / COMPLETE.record).read_bytes(),
        "grid.json": grid.read_bytes(),
        COMPLETE.page: html.render(record, run, COMPLETE).encode(),
        f"{COMPLETE.tables}.csv": csv_text(record).encode(),
    }
    for name in _pictures(record):
        files[name] = content(run, name)
    return write_bundle(slug(run.resolve().name), files, out)


def _pictures(record: RunRecord) -> list[str]:
    """Paths of all pictures, each once."""
    shown = [picture for cell in record.cells for picture in cell.pictures]
    shown += [picture for synthetic in record.synthetic for picture in synthetic.pictures]
    private = [real.path for picture in shown for real in (picture.training, picture.held_out) if real]
    return list(dict.fromkeys([*(picture.path for picture in shown), *private]))
