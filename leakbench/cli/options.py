"""Options that several commands share, and the completion of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from leakbench import registry
from leakbench.errors import UsageError
from leakbench.paths import checked_path

MOST_DAYS = 36_500


def starting(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Completion: the names that start with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete) and name.isprintable()]

    return complete


def checked(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """A path that a file can have, or UsageError; the file itself need not be there."""
    return None if path is None else checked_path(path, param.opts[0])


def checked_days(param: typer.CallbackParam, days: float) -> float:
    """Days in 0..100 years, or UsageError."""
    if not 0 <= days <= MOST_DAYS:  # NaN is in no range
        raise UsageError(f"{param.opts[0]} must be 0 to {MOST_DAYS} days, got {days}")
    return days


def attack_names() -> list[str]:
    """All registered attacks."""
    return ["all", *registry.names("attack")]


def defense_names() -> list[str]:
    """All registered defences."""
    return registry.names("defense")


def dataset_choices() -> list[str]:
    """All data sets by name, and their halves."""
    from leakbench.data import dataset_names, half_names

    return [*dataset_names(), *half_names(), "folder:"]


def public_choices() -> list[str]:
    """All sources of public images by name."""
    from leakbench.data.public import HALF, PHOTOS

    return [PHOTOS, HALF, *dataset_choices()]


def model_choices() -> list[str]:
    """All architectures by name."""
    from leakbench.models.family import model_names

    return list(model_names())


CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of the store. Default: $LEAKBENCH_CACHE, else your cache folder.",
        show_default=False,
        callback=checked,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of the data sets. Default: $LEAKBENCH_DATA, else your data folder.",
        show_default=False,
        callback=checked,
    ),
]
InceptionOption = Annotated[
    Path | None,
    typer.Option(
        "--inception",
        help="Weights file of pytorch-fid's network, for FID. Default: torch hub's cache.",
        show_default=False,
        callback=checked,
    ),
]
FailIfOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        help="Exit with 3 where this holds for a defence, as in 'classes.weights.high > 0.2', 'accuracy_drop > 0.02', "
        "'energy_ratio_int32 < 1'; 'leakage > 0.2' is of the highest upper limit. What is missing or inconclusive "
        "fails. Repeat for more.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
