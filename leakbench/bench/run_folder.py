"""A run's folder: its grid, its record and the pictures that the record names, each written whole or not at all.

A record is replaced by one that holds as much, and by no poorer one: that lies beside it (:data:`PARTIAL`) until a
run holds as much again. Pictures are named by their content, so that no run overwrites those of another's record.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from leakbench.bench.grid import GridConfig, grid_digest
from leakbench.errors import StoreError, UsageError
from leakbench.records import COMPLETE, MOST_BYTES, PARTIAL, TABLES, RecordFiles, RunRecord
from leakbench.runtime.files import read_file, write_file

IMAGES = "images"
_PICTURE = re.compile(r"\d{3,}-\d\d(-[0-9a-f]{8})?\.png|\.\d{3,}-\d\d-[0-9a-f]{8}\.png\..+")
"""a picture's name, and the temporary name that a run which was killed may have left"""

Identity = tuple[Any, ...]
"""(dataset, model, defense, attack, seed, of): what a cell is, by its labels"""


def open_run(out: Path, config: GridConfig, command: str = "", placed: Sequence[str] = ()) -> None:
    """Make the folder of a run that ``command`` started; refuse one that holds a run of another grid.

    ``placed``: the settings that said where files lie, by their names and not by their values.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    if holds_run(out, config):
        return
    dumped = config.model_dump(mode="json")
    grid = {"digest": grid_digest(config), "command": command, "placed": list(placed), "grid": dumped}
    with _writing(out):
        write_file(out / "grid.json", json.dumps(grid, indent=1).encode())


def holds_run(out: Path, config: GridConfig) -> bool:
    """Whether a folder holds a run of this grid already; UsageError where anything else is there."""
    grid = out / "grid.json"
    with _writing(out):
        if not grid.exists():
            there = next(one for one in (out, *out.parents) if one.exists())
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            # another process may be about to start the same run, or was killed while it did
            if there == out and any(not one.name.startswith(f".{grid.name}.") for one in out.iterdir()):
                raise UsageError(f"--out {str(out)!r} is not empty and holds no run: choose another folder")
            return False
    try:
        digest = json.loads(read_file(grid, MOST_BYTES))["digest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"{str(grid)!r} is damaged: choose another --out") from None
    if (out / IMAGES).is_symlink():
        raise UsageError(f"{str(out / IMAGES)!r} is a link: pictures are written into the run's own folder alone")
    if digest != grid_digest(config):
        raise UsageError(
            f"--out {str(out)!r} holds another run: choose another folder, or go on with that one: "
            f"leakbench run --resume --out {shlex.quote(str(out))}"
        )
    return True


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"--out {str(out)!r} can't be written: {error.strerror}") from None


def read_grid(out: Path) -> GridConfig:
    """The grid of the run in a folder (for --resume)."""
    path = out / "grid.json"
    if not path.is_file():
        raise UsageError(f"--resume: {str(out)!r} holds no run")
    try:
        said = json.loads(read_file(path, MOST_BYTES))
        grid = GridConfig.model_validate(dict(said["grid"]))
        if said["digest"] == grid_digest(grid):
            return grid
        raise UsageError(
            f"--resume: {str(path)!r} was edited, or is of another version of LeakBench: its digest is of another grid"
        )
    except OSError as error:
        raise UsageError(f"--resume: {str(path)!r} can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"--resume: {str(path)!r} holds no grid of this LeakBench ({where}: {first['msg']}): use the version that "
            "wrote it, or another folder"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"--resume: {str(path)!r} is damaged") from None


def first_command(out: Path) -> str:
    """What started the run in a folder that :func:`read_grid` reads; empty where it does not say so."""
    said = json.loads(read_file(out / "grid.json", MOST_BYTES))
    command = said.get("command") if isinstance(said, dict) else None
    return command if isinstance(command, str) else ""


def placed_in(out: Path) -> list[str]:
    """The settings that said where the files of such a run lie, as ``cache`` or ``features``."""
    said = json.loads(read_file(out / "grid.json", MOST_BYTES))
    placed = said.get("placed") if isinstance(said, dict) else None
    return [name for name in placed if isinstance(name, str)] if isinstance(placed, list) else []


# --- records -----------------------------------------------------------------------------------------------------


def save_record(record: RunRecord, out: Path) -> RecordFiles:
    """Write the record as results.json, or beside it where it is poorer than the one there; which of them it was.

    What is made of a record (tables, page) is never newer than it: they are written after it and removed before it.
    """
    record = RunRecord.model_validate(_encodable(record.model_dump()))
    try:
        files = PARTIAL if _is_poorer(record, out / COMPLETE.record) else COMPLETE
        write_file(out / files.record, record.model_dump_json(indent=1).encode())
        if files is COMPLETE:
            for name in (PARTIAL.page, *(f"{PARTIAL.tables}.{kind}" for kind in TABLES), PARTIAL.record):
                (out / name).unlink(missing_ok=True)
        return files
    except OSError as error:
        raise StoreError(f"--out {str(out)!r} can't be written: {error.strerror}") from None
    finally:
        remove_unnamed_pictures(out)


def _encodable(value: Any) -> Any:
    """Plain data whose texts UTF-8 can hold: names of files and words of plugins may have lone surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list | tuple) else value


def records_in(out: Path) -> list[RecordFiles]:
    """The records of a folder, that of the last run first."""
    return [files for files in (PARTIAL, COMPLETE) if (out / files.record).is_file()]


def _is_poorer(record: RunRecord, path: Path) -> bool:
    """Whether a cell was ok in the record at ``path`` and is not in the new one.

    A whole run without a failure may lack cells of the old record: another version of LeakBench or of a plugin plans
    the same grid with other cells, or names them otherwise.
    """
    before = _cells(_read(path))
    if before is None:
        return False
    cells = {_identity(cell.model_dump(include=set(_PLACE))): cell.status for cell in record.cells}
    lost = {place for place, status in before.items() if status == "ok" and cells.get(place) != "ok"}
    if record.complete and "failed" not in cells.values():
        return bool(lost & cells.keys())
    return bool(lost)


_PLACE = ("dataset", "model", "defense", "attack", "seed", "of")


def _identity(cell: dict[str, Any]) -> Identity:
    return tuple(cell.get(name, "") for name in _PLACE)


def _read(path: Path) -> Any:
    """A record as plain JSON, whatever version wrote it; None where there is none, or a damaged one."""
    try:
        return json.loads(read_file(path, MOST_BYTES))
    except OSError as error:
        raise StoreError(f"{path} can't be read ({error.strerror}): is it better than this run's? move it") from None
    except (ValueError, RecursionError):
        return None


def _cells(record: Any) -> dict[Identity, str] | None:
    """Every cell's status; None where this is no record."""
    try:
        return {_identity(cell): str(cell.get("status")) for cell in record["cells"]}
    except (TypeError, KeyError, AttributeError):
        return None


# --- pictures ----------------------------------------------------------------------------------------------------


def slug(text: str) -> str:
    """A folder's name for a label: one harmless path component, and another one for every other label."""
    plain = re.sub(r"[^A-Za-z0-9_=,-]+", "_", text)
    if plain == text and 0 < len(text) <= 80:
        return text
    return f"{plain.strip('_')[:70]}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def remove_unnamed_pictures(out: Path) -> None:
    """Remove pictures that no record of the folder names: of a record that was replaced, or of a run that broke off.

    Other files are left alone, and all of them where a record is damaged: what it named can't be known. What can't be
    removed stays: it is in nobody's way.
    """
    images = out / IMAGES
    named: set[Path] = set()
    try:
        for files in (COMPLETE, PARTIAL):
            if (out / files.record).exists():
                record = _read(out / files.record)
                pictures = [p for one in (*record["cells"], *record["synthetic"]) for p in one["pictures"]]
                private = [p[kind] for p in pictures for kind in ("training", "held_out") if p.get(kind)]
                named |= {out / p["path"] for p in (*pictures, *private)}
    except (StoreError, TypeError, KeyError, AttributeError):
        return
    if images.is_symlink():  # what lies behind a link is not this run's
        return
    with contextlib.suppress(OSError):
        for folder, _, names in os.walk(images, topdown=False):
            for path in (Path(folder) / name for name in names):
                if _PICTURE.fullmatch(path.name) and path not in named:
                    path.unlink()
            if not any(Path(folder).iterdir()):
                Path(folder).rmdir()
