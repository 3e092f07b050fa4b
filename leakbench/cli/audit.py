"""``leakbench audit``: a network as it is deployed, against everything that its access allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakbench.cli.options import (
    CacheOption,
    DataOption,
    FailIfOption,
    FeaturesOption,
    InceptionOption,
    JsonOption,
    checked,
    parsed_settings,
)
from leakbench.cli.run import (
    AnnOption,
    AttackOption,
    ControlsOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    ImagesPerClassOption,
    IsolateOption,
    JobsOption,
    MetricOption,
    NullNetworksOption,
    OutOption,
    PrecisionOption,
    PresetOption,
    PublicOption,
    QuietOption,
    SettingsOption,
    TimestepsOption,
    carry_out,
    split,
)
from leakbench.errors import UsageError


def audit(
    context: typer.Context,
    snn: Annotated[
        Path,
        typer.Option("--snn", metavar="FILE", help="The network, as leakbench export --format safetensors writes it.",
                     show_default=False, callback=checked),
    ],
    attack: AttackOption = None,
    metric: MetricOption = None,
    dataset: DatasetOption = None,
    settings: SettingsOption = None,
    timesteps: TimestepsOption = None,
    preset: PresetOption = None,
    images_per_class: ImagesPerClassOption = None,
    controls: ControlsOption = None,
    null_networks: NullNetworksOption = None,
    ann: AnnOption = None,
    public: PublicOption = None,
    data: DataOption = None,
    inception: InceptionOption = None,
    features: FeaturesOption = None,
    out: OutOption = None,
    isolate: IsolateOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    jobs: JobsOption = None,
    cache: CacheOption = None,
    dry_run: DryRunOption = False,
    fail_if: FailIfOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Attack a network as it is deployed, and write a report.

    No defence is built: the network is simulated as its file says. Controls are made from its own graph: an ANN of the
    same shape, trained on the data set (or --ann), its unprotected conversion, and networks that know nothing. Attacks
    default to auto.

    `leakbench audit --snn network.safetensors --dataset digits`
    """
    from leakbench.bench import conditions
    from leakbench.bench.grid import make_config
    from leakbench.models.files import read_network
    from leakbench.session import run as session
    from leakbench.snn import SpikingNetwork

    gate = [conditions.parse(text) for text in fail_if or ()]
    network = read_network(snn, "--snn")
    datasets = split(dataset) or ["digits"]
    if len(datasets) > 1:
        raise UsageError("--dataset: a network is audited on the data set that it was trained on: name one")
    steps = split(timesteps)
    if steps is None and isinstance(network, SpikingNetwork):
        steps = [str(network.config.timesteps)]
    given = {
        "defense": [f"network:{snn}"],
        "model": [network.arch],
        "attack": split(attack) or ["auto"],
        "metric": split(metric),
        "dataset": datasets,
        "timesteps": steps,
        "images_per_class": images_per_class,
        "preset": preset,
        "precision": precision,
        "ann": str(ann) if ann else None,
        "public": public,
        "controls": controls,
        "null_networks": null_networks,
        "set": parsed_settings(settings) if settings else None,
    }
    grid = make_config({name: value for name, value in given.items() if value is not None})
    where = {
        "cache": cache,
        "data": data,
        "inception": inception,
        "features": features,
        "device": device or "auto",
    }
    wanted = isolate if isolate is not None else True
    carry_out(
        context, grid, out or session.default_folder(grid), where, wanted, jobs, gate,
        dry_run=dry_run, as_json=as_json, quiet=quiet,
    )  # fmt: skip
