"""``leakbench doctor``: what this machine has."""

from __future__ import annotations

import json
from typing import get_args

import typer

from leakbench.cli.cache import human
from leakbench.cli.options import CacheOption, DataOption, FeaturesOption, InceptionOption, JsonOption
from leakbench.cli.terminal import echo_rows


def doctor(
    cache: CacheOption = None,
    data: DataOption = None,
    inception: InceptionOption = None,
    features: FeaturesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which data sets, weights, devices and plugins are usable here, and how large the cache is."""
    import shutil

    import torch

    from leakbench import registry
    from leakbench.data import availability, default_data_folder
    from leakbench.errors import LeakBenchError
    from leakbench.metrics.inception import INCEPTION_WEIGHTS
    from leakbench.metrics.squeezenet import SQUEEZENET_WEIGHTS, SqueezeNetFeatures
    from leakbench.paths import default_cache
    from leakbench.runtime.isolation.confinement import what_is_lacking
    from leakbench.runtime.process import available_cores, has_bfloat16
    from leakbench.runtime.store import Store
    from leakbench.session.run import NO_BFLOAT16

    rows: list[tuple[str, str, bool, str]] = []
    for dataset in availability(data):
        rows.append(("data set", dataset.name, dataset.available, dataset.detail))
    try:
        weights = INCEPTION_WEIGHTS.find(inception)
        rows.append(
            (
                "FID",
                "Inception",
                weights is not None,
                str(weights or "no weights file: fd_<judge> is reported instead"),
            )
        )
    except LeakBenchError as error:
        rows.append(("FID", "Inception", False, str(error)))
    try:
        weights = SQUEEZENET_WEIGHTS.find(features)
        detail = f"no weights file: put torchvision's at {SQUEEZENET_WEIGHTS.cached}, or name one with --features"
        if weights is not None:
            detail = f"{weights}: fd_{SqueezeNetFeatures(weights).name}"
        rows.append(("fd_squeezenet", "SqueezeNet", weights is not None, detail))
    except LeakBenchError as error:
        rows.append(("fd_squeezenet", "SqueezeNet", False, str(error)))
    cores = available_cores()
    rows.append(("device", "cpu", True, f"{cores} core{'s' if cores > 1 else ''}"))
    if (native := has_bfloat16()) is not None:
        rows.append(("precision", "bfloat16", native, "mostly faster than float32" if native else NO_BFLOAT16))
    gpu = torch.cuda.is_available()
    rows.append(("device", "cuda", gpu, torch.cuda.get_device_name() if gpu else "not available"))
    lacking = what_is_lacking()
    closed = "plugins and files of others reach nothing that they were not given"
    rows.append(("isolation", "plugins", not lacking, f"not here: {lacking}" if lacking else closed))
    for kind in get_args(registry.Kind):
        for name, entry in registry.entries(kind).items():
            try:
                registry.load(kind, name)
                if entry.origin != "built-in":
                    rows.append(("plugin", name, True, f"{kind} from {entry.origin}"))
            except LeakBenchError as error:
                rows.append(("plugin", name, False, str(error)))
    root = cache or default_cache()
    try:
        size = sum(entry.bytes for entry in Store(root).entries())
        free = shutil.disk_usage(root).free
        rows.append(("cache", "store", True, f"{root}: {human(size)}, {human(free)} free"))
    except LeakBenchError as error:
        rows.append(("cache", "store", False, str(error)))
    files = data or default_data_folder()
    there = files.is_dir()
    rows.append(("data", "folder", there, f"{files}{'' if there else ': not there, a download makes it'}"))
    if as_json:
        keys = ("kind", "name", "ok", "detail")
        typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
        return
    echo_rows([("ok" if ok else "--", kind_name, name, detail) for kind_name, name, ok, detail in rows], margin="")
