"""A comparison from the folders of runs to its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leakbench.bench import comparison
from leakbench.bench.bundle import opened
from leakbench.bench.comparison import Comparison
from leakbench.bench.run_folder import records_in, slug
from leakbench.errors import UsageError
from leakbench.paths import checked_path
from leakbench.records import COMPLETE, RecordFiles, RunRecord
from leakbench.reports import write_comparison
from leakbench.reports.files import holds_comparison, read_record


def compare(
    runs: Sequence[Path], anyway: bool, out: Path | None, files: Mapping[Path, RecordFiles] | None = None
) -> tuple[Comparison, Path]:
    """Compare the runs of these folders or bundles; the comparison and its page, written to ``out``.

    None is runs/compare-NAMES. ``files`` says of folders which of their records is meant, where it need not be the
    complete one. UsageError where the runs can't be read or compared, or ``out`` holds something else.
    """
    records = _records(runs, files or {})
    folder = out or _default_folder(records)
    _check_folder(folder)
    compared = comparison.compare(records, anyway)
    return compared, write_comparison(compared, folder)


def main_record(run: Path) -> RecordFiles:
    """Which record of a run's folder speaks for it: the complete one, where there is one."""
    held = records_in(run)
    return held[0] if held and COMPLETE not in held else COMPLETE


def _default_folder(records: Mapping[str, RunRecord]) -> Path:
    return Path("runs") / slug(f"compare-{'-'.join(records)}")


def _records(runs: Sequence[Path], files: Mapping[Path, RecordFiles]) -> dict[str, RunRecord]:
    """The runs' records by a name for each: the folder's, with as much of its path as tells it from the others."""
    paths = [checked_path(run, "RUN").resolve() for run in runs]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UsageError(f"{str(runs[number])!r} is given twice: give each run once")
    records = {}
    for run, path in zip(runs, paths, strict=True):
        depth = 1
        while depth < len(path.parts) and any(
            other != path and other.parts[-depth:] == path.parts[-depth:] for other in paths
        ):
            depth += 1
        with opened(run) as folder:
            name = "/".join(path.parts[-depth:])
            # a record holds texts that UTF-8 can, and a folder may be called otherwise
            records[name.encode("utf-8", "backslashreplace").decode()] = read_record(
                folder, files.get(run) or main_record(folder)
            )
    return records


def _check_folder(out: Path) -> None:
    """UsageError where the comparison would lie among other files."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not holds_comparison(out))):
        raise UsageError(f"--out {str(out)!r} is not empty and holds no comparison: choose another folder")
