"""Options of the commands that compute: ``leakbench run`` and ``leakbench audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from leakbench.cli.completion import (
    attack_names,
    dataset_choices,
    metric_choices,
    model_choices,
    public_choices,
    setting,
    several,
    starting,
)
from leakbench.cli.options import checked

_GROUPS = {
    "What to run": ("snn", "network_settings", "defense", "suite", "attack", "metric", "dataset", "model", "settings", "timesteps"),
    "How much": ("preset", "protocol", "seeds", "images_per_class", "classes", "controls", "null_networks"),
    "Data and weights": ("ann", "weights", "mean", "std", "judges", "public", "data", "inception", "features"),
    "Where and how it runs": (
        "out", "config", "resume", "trust_plugins", "isolate", "device", "precision", "executor", "address", "jobs",
        "cache", "local_cache", "dry_run",
    ),
}  # fmt: skip
_PANELS = {name: group for group, names in _GROUPS.items() for name in names}


class GroupedHelp(TyperCommand):
    """The command with its options in groups; those in none, --help among them, are of the output."""

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)
        for param in params:
            param.rich_help_panel = _PANELS.get(str(param.name), "Output")  # type: ignore[attr-defined]
        return params


# fmt: off
AttackOption = Annotated[
    list[str] | None,
    typer.Option("--attack", "-a", metavar="NAMES", help="Attacks: names, path/to/file.py:Class, auto and auto_mia (recommended, for classes and for members), "
                 "all (every single attack of both kinds, without these two), or none (accuracy and energy alone). Default: auto.",
                 autocompletion=several(attack_names), show_default=False),
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAMES", help="Metrics of your own, measured besides the built-in ones: names of installed ones or "
                 "path/to/file.py:Class.",
                 autocompletion=several(metric_choices), show_default=False),
]
DatasetOption = Annotated[
    list[str] | None,
    typer.Option("--dataset", metavar="NAMES", help="Data sets: names, folder:PATH with one subfolder a class, FILE.npz, or path/to/file.py:function. NAME:half keeps "
                 "every second class private; folder:PATH:flips says that mirrored images keep their class. Default: digits.",
                 autocompletion=several(dataset_choices), show_default=False),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAMES", help="Models: names or path/to/file.py:function. Default: one that fits the data set; of an audit the network's own.",
                 autocompletion=several(model_choices), show_default=False),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SETTING", help="PLUGIN.PARAMETER=VALUE, as in privatesnn.epochs=5; several values, separated by commas, make a grid, "
                 "and numbers a curve.",
                 autocompletion=setting, show_default=False),
]
TimestepsOption = Annotated[
    list[str] | None,
    typer.Option("--timesteps", "-T", metavar="NUMBERS", help="Time steps T of the spiking networks; several, separated by commas, make curves over T. "
                 "Default: the preset's; of an audit the network's.", show_default=False),
]
PresetOption = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="quick, standard, paper-cpu or paper. Default: standard.",
                             autocompletion=starting(lambda: ["quick", "standard", "paper-cpu", "paper"]), show_default=False)
]
ImagesPerClassOption = Annotated[
    int | None, typer.Option("--images-per-class", metavar="NUMBER", help="Images that an attack reconstructs of each class. Default: the preset's.",
                             show_default=False)
]
ClassesOption = Annotated[
    int | None, typer.Option("--classes", metavar="NUMBER", help="Classes that attacks reconstruct, at most: picked at random, the same of every network. Verdicts are about these alone. Default: all.",
                             show_default=False)
]
ControlsOption = Annotated[
    bool | None, typer.Option("--controls/--no-controls", help="Add the controls: unprotected and untrained networks, noise and real images; with a membership inference attack an overfitted network too, and one trained on other images. Default: on.",
                              show_default=False)
]
NullNetworksOption = Annotated[
    int | None, typer.Option("--null-networks", metavar="NUMBER", help="Untrained and label-shuffled networks that each attack is also run on, from 3 seeds on, so that single classes can be named; ensembles run on 6 at most. Default: the preset's, 6 or 20.",
                             show_default=False)
]
AnnOption = Annotated[
    str | None, typer.Option("--ann", metavar="FILE|FILE:FUNCTION", help="Your own ANN instead of training one: weights for --model (.safetensors, .pt, .pth), or "
                             "path/to/file.py:function, which is run and returns a torch.nn.Module of ReLU.", show_default=False)
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="Weights (.safetensors, .pt, .pth) for the network that --ann file.py:function builds. Default: as it returns it.",
                              show_default=False, callback=checked)
]
MeanOption = Annotated[
    str | None, typer.Option("--mean", metavar="NUMBERS", help="Your ANN takes (image - mean) / std of images in [0, 1]: a number, or one of each channel, separated by commas. "
                             "Default, without --std: images in the data set's input range.", show_default=False)
]
StdOption = Annotated[
    str | None, typer.Option("--std", metavar="NUMBERS", help="See --mean.", show_default=False)
]
JudgesOption = Annotated[
    Path | None, typer.Option("--judges", metavar="FOLDER", help="Evaluation models that leakbench export RUN --judges wrote, instead of training them.",
                              show_default=False, callback=checked)
]
PublicOption = Annotated[
    str | None,
    typer.Option("--public", metavar="NAME", help="Images of other classes, for attacks that need some: photos (crops of two photographs, always there), "
                 "half (the other classes of a data set NAME:half), or another data set. The more similar they are to the private images, the more "
                 "they help. Default: half for NAME:half, else photos.",
                 autocompletion=starting(public_choices), show_default=False),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Folder of the run. Default: runs/DATASET-DEFENSES-HASH, with a hash of the grid.",
                              show_default=False, callback=checked)
]
IsolateOption = Annotated[
    bool, typer.Option("--isolate/--no-isolate", help="Run attacks and defences that are not built in in processes of their own, which reach nothing that they were "
                              "not given. --no-isolate is for debugging, and the report says so. Default: on, where the system can.", show_default=False)
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 ... Default: auto.", show_default=False)
]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", metavar="NAME", help="Precision of convolutions and matrix products in training, simulation and attacks, and in the training of evaluation models on colour images: float32 (exact), "
                             "bfloat16 (faster on processors with instructions for it; some spikes change), tf32 (CUDA; of answers alone). Default: the preset's.",
                             autocompletion=starting(lambda: ["float32", "tf32", "bfloat16"]), show_default=False)
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", metavar="NUMBER", help="Worker processes, one thread each; results don't depend on it. Default: one per core, "
                             "limited by free memory; one on a GPU. With --executor ray: one per core, or per GPU, of the cluster.", show_default=False)
]
ExecutorOption = Annotated[
    str | None, typer.Option("--executor", metavar="NAME", help="Where cells are computed: local (worker processes on this machine), ray (a Ray cluster, "
                             "with the extra ray), or what a package adds. Default: local.", autocompletion=starting(lambda: ["local", "ray"]), show_default=False)
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="HOST:PORT", help="With --executor ray: the cluster, auto for the one that this machine is part of. Default: "
                             "$RAY_ADDRESS, else one on this machine that ends with the run.", show_default=False)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Compute nothing: check the options, and print the cells with an estimate of their time and memory.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
# fmt: on
