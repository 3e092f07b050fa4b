"""The data sets by name: which there are, which are at hand, and how one is loaded."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from platformdirs import user_data_path

from leakbench import registry
from leakbench.data.dataset import FLIPS, Availability, Dataset, GridDefaults, Source, among
from leakbench.data.folder import PREFIX, load_folder
from leakbench.data.half import SUFFIX, base_name, private_half
from leakbench.data.npz import is_npz, load_npz
from leakbench.data.third_party import built
from leakbench.errors import UnknownName, UsageError
from leakbench.paths import user_path

log = logging.getLogger("leakbench")

PATTERNS = ("folder:PATH", f"folder:PATH{FLIPS}", "FILE.npz", f"FILE.npz{FLIPS}")
"""what names a data set of the user's own, beside path/to/file.py:function"""


def dataset_names() -> tuple[str, ...]:
    """The registered data sets, the default first; users' own files and folders come on top."""
    return tuple(registry.names("dataset"))


def half_names() -> tuple[str, ...]:
    """The same data sets with every second class only (see :func:`leakbench.data.half.private_half`)."""
    return tuple(f"{name}{SUFFIX}" for name in dataset_names())


def dataset_label(name: str) -> str:
    """How a data set is named in records and reports: without the folders of its file; ``folder:PATH`` as it is."""
    if name.startswith(PREFIX):
        return name
    whole = base_name(name)
    label = Path(whole).name if is_npz(whole) else registry.label(whole)
    return label + name.removeprefix(whole)


def check_dataset(name: str, kind: str = "dataset", others: tuple[str, ...] = ()) -> None:
    """Raises UnknownName, with the nearest name, where :func:`load_dataset` would; looks at the name only.

    ``others`` are names that do as well in the place of such a ``kind``.
    """
    whole = base_name(name)
    if name.startswith(PREFIX) or is_npz(whole) or ".py:" in whole:
        return
    if not registry.is_built_in("dataset", whole) and name not in others and whole not in dataset_names():
        if whole.endswith(".py"):
            raise UsageError(f"{kind} {name!r}: which function makes it? Give {whole}:FUNCTION")
        if os.path.isdir(whole):  # noqa: PTH112 - of a name that can be no path it is False
            raise UsageError(f"{kind} {name!r}: to read this folder's images give folder:{name}")
        raise UnknownName(kind, name, (*others, *dataset_names(), *half_names(), *PATTERNS))


def grid_defaults(name: str) -> GridDefaults:
    """What a grid takes on the data set where nothing is asked for; of those that users bring, the preset's."""
    whole = base_name(name)
    if not registry.is_built_in("dataset", whole):
        return GridDefaults()
    built_in: Source = registry.load("dataset", whole)
    return built_in.defaults


def default_data_folder() -> Path:
    """Where data sets are kept and downloaded to: $LEAKBENCH_DATA, else the user's own data folder."""
    given = os.environ.get("LEAKBENCH_DATA", "")
    if not given:
        return user_data_path("leakbench") / "datasets"
    return user_path(given, "$LEAKBENCH_DATA")


def load_dataset(name: str, folder: Path | None = None) -> Dataset:
    """The data set of that name, or of a user's own: ``folder:PATH``, an .npz file, ``path/to/file.py:function``.

    With ``:flips`` behind a folder or an .npz file, mirrored images keep their class: training may mirror them. With
    ``:half`` behind any (but for a folder) every second class only. See :func:`leakbench.data.half.private_half`,
    :func:`leakbench.data.folder.load_folder`, :func:`leakbench.data.npz.load_npz` and
    :func:`leakbench.data.third_party.built`.

    ``folder`` is where data sets are kept, :func:`default_data_folder` by default; what is missing there is
    downloaded. Raises UnknownName with the nearest name, UsageError for a PATH or file that is not there, DataError
    for data that are missing, damaged or unfit, PluginError for a third party's function that can't be had. Test
    images of a user's own data set that are also training images are counted in its source and in a warning.
    """
    data = read_dataset(name, folder)
    if registry.is_built_in("dataset", base_name(name)):
        return data  # those that were published with copies are known
    copies = among(data.test.images.numpy(), data.train.images.numpy()).sum()
    if not copies:
        return data
    counted = f"{copies:,} of {len(data.test):,} test images are also training images"
    log.warning(f"{dataset_label(name)}: {counted}: accuracy is overestimated")
    return replace(data, source=f"{data.source}; {counted}")


def read_dataset(name: str, folder: Path | None = None) -> Dataset:
    """The data set as :func:`load_dataset` gives it, for those who use its training images alone: no copies counted."""
    check_dataset(name)
    if name.startswith(PREFIX):
        return load_folder(name)
    whole = base_name(name)
    if is_npz(whole):
        data = load_npz(whole)
    elif registry.is_built_in("dataset", whole):
        data = registry.load("dataset", whole)(folder or default_data_folder())
    else:
        data = built(whole, folder or default_data_folder())
    return data if name == whole else private_half(data)


def availability(folder: Path | None = None) -> list[Availability]:
    """For each built-in data set, whether it is at hand; looks at files only, loads and downloads nothing."""
    where = folder or default_data_folder()
    known = registry.entries("dataset").values()
    return [registry.load("dataset", one.name).availability(where) for one in known if one.origin == "built-in"]
