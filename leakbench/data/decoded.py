"""Copies of decoded data sets in the user's cache, so that tens of thousands of files are read once."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leakbench.data.records import Published, Records
from leakbench.data.trees import read_regular
from leakbench.errors import DataError
from leakbench.paths import default_cache, own_files, remove_unused

log = logging.getLogger("leakbench")

_FOLDER = "datasets"
_ENDING = ".records"


def decoded_copies(cache: Path) -> dict[Path, os.stat_result]:
    """The copies that lie in a cache, half-written ones of killed runs among them; their time is that of last use."""
    return own_files(cache / _FOLDER, _ENDING)


def prune_copies(cache: Path, older_than_days: float) -> tuple[int, int]:
    """Remove the copies in a cache that were not used for so many days; (copies, bytes) removed."""
    return remove_unused(decoded_copies(cache), older_than_days)


@dataclass(frozen=True)
class DecodedCopy:
    """The records of all splits in a file of the user's cache, so that they are decoded once.

    Whoever may write there may put anything in its place: what is read is believed for its digests alone.
    """

    name: str
    splits: tuple[Published, ...]
    classes: int
    pixels: int

    @property
    def path(self) -> Path:
        return default_cache() / _FOLDER / f"{self.name}-{self.splits[0].digest[:16]}{_ENDING}"

    def read(self) -> list[Records] | None:
        """The splits' records in the order of their digests; None where there is no copy, or, with a warning, where it
        is not one."""
        counts = [split.each * self.classes for split in self.splits]
        size = sum(counts) * (1 + self.pixels)
        try:
            content = read_regular(str(self.path), size)
            if content is None:
                return None
            if len(content) != size:
                raise DataError(f"{self.path} is {len(content):,} bytes, right would be {size:,}")
            rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + self.pixels)
            starts = np.cumsum(counts)[:-1]
            kept = [
                split.in_order(self.path, part) for split, part in zip(self.splits, np.split(rows, starts), strict=True)
            ]
        except DataError as error:
            log.warning("damaged decoded copy (%s): it is made anew", error)
            return None
        with contextlib.suppress(OSError):
            os.utime(self.path)  # last use
        return kept

    def write(self, splits: Sequence[Records]) -> None:
        """Keep these records, whole or not at all; does without where the cache can't be written."""
        path = self.path
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=_ENDING, delete=False) as file:
                temporary = Path(file.name)
                for records in splits:
                    file.write(records.data)
            temporary.chmod(0o644)  # temporary files are for their owner alone
            temporary.replace(path)
        except OSError as error:
            log.warning("%s can't be written (%s): %s is decoded at every use", path, error.strerror, self.name)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    temporary.unlink()
