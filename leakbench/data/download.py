"""Published files: kept in a folder, checked against their md5 each time, downloaded where missing."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from pathlib import Path

from leakbench.errors import DataError


def fetch(dataset: str, mirrors: Sequence[str], files: Mapping[str, str], folder: Path) -> list[Path]:
    """The paths of ``files`` (name -> md5) in ``folder``, in their order; every md5 was found right.

    A missing or damaged file is downloaded from the first of ``mirrors`` (URLs that end in "/") that has it.
    Raises DataError, one line that says which files belong where, if that fails.
    """
    return [_one(dataset, mirrors, name, files, folder) for name in files]


def _one(dataset: str, mirrors: Sequence[str], name: str, files: Mapping[str, str], folder: Path) -> Path:
    from filelock import FileLock
    from torchvision.datasets.utils import check_integrity, download_url

    path = folder / name
    try:
        if check_integrity(path, files[name]):
            return path
        state = "is damaged (wrong md5)" if path.exists() else "is missing"
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{dataset}: {folder} can't be used ({error}): set LEAKBENCH_DATA to a folder of yours"
        ) from None
    reason = ""
    for mirror in mirrors:
        try:
            with FileLock(folder / ".download.lock"):  # two runs that start together download once
                download_url(mirror + name, folder, md5=files[name])
            return path
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            # RuntimeError is what torchvision makes of a wrong md5.
            reason = reason or " ".join(f"{type(error).__name__}: {error}".split())
    wanted = ", ".join(f"{file} (md5 {md5})" for file, md5 in files.items())
    raise DataError(
        f"{dataset}: {name} {state} in {folder} and can't be downloaded ({reason}): "
        f"get {wanted} from {mirrors[0]} and put it there"
    )
