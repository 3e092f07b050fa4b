"""``leakbench audit``: a network as it is deployed, against everything that its access allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from leakbench.cli.completion import attack_names, several
from leakbench.cli.options import (
    CacheOption,
    DataOption,
    FailIfOption,
    FeaturesOption,
    InceptionOption,
    JsonOption,
    LocalCacheOption,
    checked,
    parsed_settings,
)
from leakbench.cli.run import carry_out, split
from leakbench.cli.run_options import (
    AddressOption,
    AnnOption,
    ClassesOption,
    ControlsOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    ExecutorOption,
    ImagesPerClassOption,
    IsolateOption,
    JobsOption,
    JudgesOption,
    MeanOption,
    MetricOption,
    ModelOption,
    OutOption,
    PrecisionOption,
    PresetOption,
    PublicOption,
    QuietOption,
    SettingsOption,
    StdOption,
    TimestepsOption,
    WeightsOption,
)


def audit(
    context: typer.Context,
    snn: Annotated[
        str,
        typer.Option("--snn", metavar="FILE|FILE:FUNCTION", help="The network: a file .nir, or one that leakbench export --snn wrote, or path/to/file.py:function, which "
                     "is run and returns a torch module: of SpikingJelly, snnTorch, Norse or sinabs, or any with forward in its settings.", show_default=False),
    ],
    network_settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE.json", help="What a file .nir or a module does not say: time steps, how images enter, what is read out, and how neurons reset. "
                     "Default of NET.nir: NET.json beside it.", show_default=False, callback=checked),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option("--attack", "-a", metavar="NAMES", help="Attacks: names, path/to/file.py:Class, auto (recommended, for classes), all (every single attack), or none "
                     "(accuracy and energy alone). For members: loss_threshold, attack_p, noise_mia, label_only_mia, gradient_mia; those with reference networks, as auto_mia, "
                     "are not applicable. Default: auto.", autocompletion=several(attack_names), show_default=False),
    ] = None,
    metric: MetricOption = None,
    dataset: DatasetOption = None,
    model: ModelOption = None,
    settings: SettingsOption = None,
    timesteps: TimestepsOption = None,
    preset: PresetOption = None,
    images_per_class: ImagesPerClassOption = None,
    classes: ClassesOption = None,
    controls: ControlsOption = None,
    ann: AnnOption = None,
    weights: WeightsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    judges: JudgesOption = None,
    public: PublicOption = None,
    data: DataOption = None,
    inception: InceptionOption = None,
    features: FeaturesOption = None,
    out: OutOption = None,
    isolate: IsolateOption = True,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    jobs: JobsOption = None,
    cache: CacheOption = None,
    local_cache: LocalCacheOption = None,
    dry_run: DryRunOption = False,
    fail_if: FailIfOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Attack a network as it is deployed, and write a report.

    No defence is built: the network is simulated as its file says. Controls are made from its own graph: an ANN of the
    same shape, trained on the data set (or --ann), its unprotected conversion, and the network itself with the weights
    of each layer in random order. Attacks default to auto.

    `leakbench audit --snn network.nir --settings network.json --dataset digits`

    `leakbench audit --snn mine.py:build --settings mine.json --dataset folder:images`

    Exit status: as of leakbench run; 2 too where the network classifies test images hardly better than a guess.
    """
    import torch

    from leakbench.bench import conditions
    from leakbench.bench.backends import LOCAL, backend_named
    from leakbench.bench.work import Sizes
    from leakbench.runtime.process import device_here
    from leakbench.session import audits
    from leakbench.session import run as session
    from leakbench.session.anns import OwnAnn
    from leakbench.session.answers import check_ann, check_answers, check_shapes

    backend = context.with_resource(backend_named(executor or LOCAL, address, device or "auto"))
    gate = [conditions.parse(text) for text in fail_if or ()]
    given: dict[str, Any] = {
        "attack": split("attack", attack),
        "metric": split("metric", metric),
        "dataset": split("dataset", dataset),
        "model": split("model", model),
        "timesteps": split("timesteps", timesteps),
        "images_per_class": images_per_class,
        "classes": classes,
        "preset": preset,
        "precision": precision,
        "ann": ann,
        "judges": str(judges) if judges else None,
        "public": public,
        "controls": controls,
        "set": parsed_settings(settings) if settings else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    own = OwnAnn(weights, mean, std)
    network, grid = audits.audited(snn, network_settings, given, own, data, cache)
    if dry_run:
        size = Sizes(data).data(grid.dataset[0])  # None where only a download would tell
        if size is not None:
            check_shapes(network, snn, grid.dataset[0], size.shape, size.classes)
    else:
        check_answers(network, snn, grid.dataset[0], data, torch.device(device_here(backend.device)))
        check_ann(grid, data, backend.device)
    where = {
        "cache": cache,
        "local_cache": local_cache,
        "data": data,
        "inception": inception,
        "features": features,
    }
    carry_out(
        context, grid, out or session.default_folder(grid), where, backend, isolate, jobs, gate,
        secret=own.files(ann), dry_run=dry_run, as_json=as_json, quiet=quiet,
    )  # fmt: skip
