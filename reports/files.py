"""What the report reads and writes in a run's folder, images aside."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from leakbench.bench.comparison import Comparison
from leakbench.bench.comparison.records import COMPARISON_SCHEMA
from leakbench.errors import StoreError, UsageError
from leakbench.records import COMPLETE, MOST_BYTES, PARTIAL, SCHEMA, RecordFiles, RunRecord
from leakbench.runtime.files import read_file, write_file

COMPARISON = "comparison.json"
LEADERBOARD = "leaderboard.json"
RECORDS = (COMPLETE.record, PARTIAL.record, COMPARISON, LEADERBOARD)


class _Head(BaseModel):
    """What every version's record says of itself."""

    schema_version: int
    leakbench: str


def read_record(run: Path, files: RecordFiles = COMPLETE) -> RunRecord:
    """The record in ``run``, results.json or the one beside it; UsageError where this version can read none."""
    if not (run / files.record).exists() and (run / "grid.json").exists():
        raise UsageError(f"{run} has no {files.record}: the run broke off: leakbench run --resume --out {run}")
    return _read(run / files.record, RunRecord, SCHEMA, "run", "the folder of a finished run")


def read_comparison(folder: Path) -> Comparison:
    """The comparison in ``folder``; UsageError where this version can read none."""
    return _read(folder / COMPARISON, Comparison, COMPARISON_SCHEMA, "comparison", "the folder of a comparison")


def read_either(folder: Path) -> RunRecord | Comparison:
    """The record of a run or of a comparison; UsageError where ``folder`` holds neither or both."""
    held = [name for name in (COMPLETE.record, COMPARISON) if (folder / name).exists()]
    if len(held) == 1:
        return read_record(folder) if held == [COMPLETE.record] else read_comparison(folder)
    kind = f"both {held[0]} and {held[1]}" if held else f"neither {COMPLETE.record} nor {COMPARISON}"
    problem = f"holds {kind}" if folder.is_dir() else "is no folder"
    raise UsageError(f"{folder} {problem}: give the folder of a finished run or of a comparison")


def holds_comparison(folder: Path) -> bool:
    """Whether a comparison lies there, of whatever version."""
    return _holds(folder / COMPARISON)


def holds_leaderboard(folder: Path) -> bool:
    """Whether a leaderboard lies there, of whatever version."""
    return _holds(folder / LEADERBOARD)


def _holds(path: Path) -> bool:
    try:
        _Head.model_validate_json(read_file(path, MOST_BYTES))
    except (OSError, ValueError):
        return False
    return True


_Made = TypeVar("_Made", bound=BaseModel)


def _read(path: Path, kind: type[_Made], schema: int, noun: str, wanted: str) -> _Made:
    """The record of that ``kind`` and ``schema`` version at ``path``."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UsageError(f"{path} is no regular file: give {wanted}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is larger than {MOST_BYTES >> 20} MB, which no record is: give {wanted}")
        text = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"{path} can't be read ({reason}): give {wanted}") from error
    try:
        head = _Head.model_validate_json(text)
        # The version comes first: of another one's fields nothing is known.
        if head.schema_version == schema:
            return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{path} is no record of a {noun}: {where}: {first['msg']}") from error
    raise UsageError(
        f"{path} has schema version {head.schema_version}, this LeakBench reads {schema}: "
        f"use the version that wrote it ({head.leakbench})"
    )


def make_folder(out: Path) -> None:
    """Make a folder for what is written, where there is none; StoreError, one line, where it can't be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"--out {str(out)!r} can't be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` as UTF-8 with its own line ends: a reader finds the old file or the whole new one."""
    return write_file(path, text.encode())
