"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakbench.errors import UsageError
from leakbench.paths import checked_path

MOST_DAYS = 36_500


def checked(param: typer.CallbackParam, path: Path | None) -> Path | None:
    """A path that a file can have, or UsageError; the file itself need not be there."""
    return None if path is None else checked_path(path, param.opts[0])


def checked_days(param: typer.CallbackParam, days: float) -> float:
    """Days in 0..100 years, or UsageError."""
    if not 0 <= days <= MOST_DAYS:  # NaN is in no range
        raise UsageError(f"{param.opts[0]} must be 0 to {MOST_DAYS} days, got {days}")
    return days


CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FOLDER",
        help="Folder of the store. Default: $LEAKBENCH_CACHE, else your cache folder.",
        show_default=False,
        callback=checked,
    ),
]
LocalCacheOption = Annotated[
    Path | None,
    typer.Option(
        "--local-cache",
        metavar="FOLDER",
        help="Folder on a disk of each machine that keeps copies of what is read from a --cache on a shared folder. "
        "Default: $LEAKBENCH_LOCAL_CACHE, else none.",
        show_default=False,
        callback=checked,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder of the data sets. Default: $LEAKBENCH_DATA, else your data folder.",
        show_default=False,
        callback=checked,
    ),
]
InceptionOption = Annotated[
    Path | None,
    typer.Option(
        "--inception",
        metavar="FILE",
        help="Weights file of pytorch-fid's network, for FID. Default: $LEAKBENCH_INCEPTION, else torch hub's cache.",
        show_default=False,
        callback=checked,
    ),
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option(
        "--features",
        metavar="FILE",
        help="Weights of torchvision's squeezenet1_1, for fd_squeezenet; safetensors whose metadata say how images are "
        "normalised. Default: $LEAKBENCH_FEATURES, else torch hub's cache.",
        show_default=False,
        callback=checked,
    ),
]
FailIfOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="CONDITION",
        help="Exit with 3 where this holds for a defence, as in 'classes.weights.high > 0.2', 'accuracy_drop > 0.02', "
        "'energy_ratio_int32 < 1'; 'leakage > 0.2' uses the highest upper limit of what was attacked. Fails, too, "
        "where it can't be checked: no valid attack, a missing value, a defence without a rank. Repeat for more.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def parsed_settings(given: list[str]) -> dict[str, list[str]]:
    """PLUGIN.PARAMETER=VALUE[,VALUE...] of --set: "plugin.param" -> values; UsageError for another form."""
    settings: dict[str, list[str]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"--set {text!r}: give plugin.param=value, as in privatesnn.epochs=5")
        settings.setdefault(key, []).extend(value.split(","))
    return settings
