"""The data sets by name: which there are, which are at hand, and how one is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path

from leakbench.data.cifar import CIFAR10, CIFAR100
from leakbench.data.dataset import Availability, Dataset, Source
from leakbench.data.digits import DIGITS
from leakbench.data.folder import PREFIX, load_folder
from leakbench.data.half import SUFFIX, base_name, private_half
from leakbench.data.idx import FASHION_MNIST, MNIST
from leakbench.data.tinyimagenet import TINY_IMAGENET
from leakbench.errors import UnknownName
from leakbench.paths import checked_path

_SOURCES: tuple[Source, ...] = (DIGITS, FASHION_MNIST, MNIST, CIFAR10, CIFAR100, TINY_IMAGENET)


def dataset_names() -> tuple[str, ...]:
    """The names that :func:`load_dataset` knows, the default first; ``folder:PATH`` comes on top."""
    return tuple(source.name for source in _SOURCES)


def half_names() -> tuple[str, ...]:
    """The same data sets with every second class only (see :func:`leakbench.data.half.private_half`)."""
    return tuple(f"{name}{SUFFIX}" for name in dataset_names())


def check_dataset(name: str) -> None:
    """Raises UnknownName, with the nearest name, where :func:`load_dataset` would; looks at the name only."""
    known = (*dataset_names(), *half_names())
    if name not in known and not name.startswith(PREFIX):
        raise UnknownName("dataset", name, (*known, f"{PREFIX}PATH"))


def default_data_folder() -> Path:
    """Where data sets are kept and downloaded to: $LEAKBENCH_DATA, else the user's own data folder."""
    given = os.environ.get("LEAKBENCH_DATA", "")
    if not given:
        return user_data_path("leakbench") / "datasets"
    return checked_path(Path(given).expanduser(), "$LEAKBENCH_DATA")


def load_dataset(name: str, folder: Path | None = None) -> Dataset:
    """The data set of that name, its half (``NAME:half``), or ``folder:PATH``.

    See :func:`leakbench.data.half.private_half` and :func:`leakbench.data.folder.load_folder`.

    ``folder`` is where data sets are kept, :func:`default_data_folder` by default; what is missing there is
    downloaded. Raises UnknownName with the nearest name, UsageError for a PATH that is no folder, DataError
    for data that are missing, damaged or unfit.
    """
    check_dataset(name)
    if name.startswith(PREFIX):
        return load_folder(name)
    whole = base_name(name)
    (source,) = (source for source in _SOURCES if source.name == whole)
    data = source.load(folder or default_data_folder())
    return data if name == whole else private_half(data)


def availability(folder: Path | None = None) -> list[Availability]:
    """For each known data set, whether it is at hand; looks at files only, loads and downloads nothing."""
    where = folder or default_data_folder()
    return [source.availability(where) for source in _SOURCES]
