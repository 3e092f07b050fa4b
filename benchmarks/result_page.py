"""What every page of docs/results has: when, with which version, on which machine and by which commands it was made."""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw

from leakbench import __version__
from leakbench.leakage import conclude
from leakbench.leakage.membership.verdict import TAIL
from leakbench.metrics.frechet import FdSqueezeNet
from leakbench.records import COMPLETE, CellRecord, Picture, RunRecord
from leakbench.reports.curves import Curve
from leakbench.reports.files import read_record
from leakbench.reports.sweeps import sweep_figure
from leakbench.reports.tables import markdown
from leakbench.runtime.process import available_cores, environment

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECORDS = RESULTS / "records"
"""results.json of the runs behind pages that take hours, packed: who adds a run need not compute the others again"""
_PACKED = ".json.gz"
LEAST_VERSIONS = {"rmia": 3, "lira": 3, "bavaria": 3, "auto_mia-v1": 3}
"""of attacks: before, they asked the victim and its references under the same noise, as no attacker can"""
TAIL_WIDENED = "2026-11-29"
"""day from which on intervals of a network's members found at a false positive rate allow for the threshold"""
_PLACES = ("--cache", "--out", "--data", "--jobs", "-j")
"""options that say where a run computed and not what"""


@dataclass(frozen=True)
class Measurement:
    """When and where something was measured, and by which commands."""

    date: str
    version: str
    machine: str
    commands: Sequence[str]


def of_run(record: RunRecord, folder: str, command: str) -> Measurement:
    """That of a run's record; ``command`` makes the page from ``folder``, where readers have the run."""
    return Measurement(
        record.created[:10],
        record.leakbench,
        _machine(record.environment),
        [shlex.join([*_asked(record), "--out", folder]), command],
    )


def of_runs(records: Mapping[str, RunRecord], command: str) -> Measurement:
    """That of several runs by folder: of the first and the last of them, on every machine."""
    every = [of_run(record, folder, command) for folder, record in records.items()]
    return Measurement(
        " to ".join(dict.fromkeys(end(one.date for one in every) for end in (min, max))),
        ", ".join(dict.fromkeys(one.version for one in every)),
        "; ".join(dict.fromkeys(one.machine for one in every)),
        [*(one.commands[0] for one in every), command],
    )


def read_runs(description: str | None) -> tuple[str, dict[str, RunRecord]]:
    """The data set and the records, by the folder where readers have them, of the runs that the command line names.

    Ends with a line where they are of several data sets. ``description`` is the command's help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folders of runs, or files in docs/results/records, of one data set"
    )
    records = dict(map(_read, parser.parse_args().runs))
    dataset, *others = dict.fromkeys(record.datasets[0].name for record in records.values())
    if others:
        parser.error(f"runs of one data set belong together: these are of {dataset} and {', '.join(others)}")
    return dataset, records


def read_run(description: str | None) -> tuple[str, RunRecord]:
    """The folder where readers have it, and the record, of the one run that the command line names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, or a file in docs/results/records")
    return _read(parser.parse_args().run)


def keep(records: Mapping[str, RunRecord]) -> None:
    """Write runs, by the folder where readers have them, into ``RECORDS``: without where they computed."""
    RECORDS.mkdir(exist_ok=True)
    for name, record in records.items():
        kept = record.model_copy(update={"command": shlex.join(_asked(record))})
        packed = gzip.compress(kept.model_dump_json().encode(), mtime=0)
        (RECORDS / f"{Path(name).name}{_PACKED}").write_bytes(packed)


def _asked(record: RunRecord) -> list[str]:
    """The words of its command that say what it computed, and not where."""
    words = shlex.split(record.command)
    kept = [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & set(_PLACES)]
    return [word for word in kept if word not in ("--quiet", "-q")]


def _read(run: Path) -> tuple[str, RunRecord]:
    """A run as readers have it, and its record with the conclusions of today."""
    if not run.name.endswith(_PACKED):
        return f"runs/{run.name}", of_today(read_record(run))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / COMPLETE.record).write_bytes(gzip.decompress(run.read_bytes()))
        return f"runs/{run.name.removesuffix(_PACKED)}", of_today(read_record(Path(folder)))


def of_today(record: RunRecord) -> RunRecord:
    """What the run measured, concluded by the present rules: without attacks that have been mended since, and without
    intervals that were too narrow."""
    stale = {one.name for one in record.plugins if one.version < LEAST_VERSIONS.get(one.name, 0)}
    cells = [cell for cell in record.cells if cell.attack_name not in stale]
    if record.created < TAIL_WIDENED:
        none = {"low": None, "high": None}
        cells = [
            cell.model_copy(
                update={"values": [v.model_copy(update=none) if v.metric == TAIL else v for v in cell.values]}
            )
            for cell in cells
        ]
    plugins = [one for one in record.plugins if one.name not in stale]
    needs = {plugin.name: plugin.needs for plugin in plugins if plugin.kind == "attack"}
    found = conclude(cells, needs, {metric.name: metric for metric in record.metrics})
    drawn = {"scales": found.scales, "rows": found.rows, "verdicts": found.verdicts}
    return record.model_copy(update={"cells": cells, "plugins": plugins, **drawn})


def of_now(*commands: str) -> Measurement:
    """That of the process that measures."""
    facts = environment(torch.device("cpu")) | {"cores": str(available_cores())}
    return Measurement(datetime.datetime.now(datetime.UTC).date().isoformat(), __version__, _machine(facts), commands)


def _machine(facts: Mapping[str, str]) -> str:
    cores = "1 core" if facts["cores"] == "1" else f"{facts['cores']} cores"
    return f"{facts['processor']}, {cores}; Python {facts['python']}, PyTorch {facts['torch']}, NumPy {facts['numpy']}"


def write(name: str, title: str, about: str, measurement: Measurement, *parts: str) -> None:
    """Write docs/results/``name``: the parts below what they are of."""
    head = [
        f"# {title}",
        about,
        f"{measurement.date}, LeakBench {measurement.version}, {measurement.machine}. This page is written by:",
        "\n".join(["```", *measurement.commands, "```"]),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text("\n\n".join([*head, *parts]) + "\n", encoding="utf-8")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts that are Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *rows))


SQUEEZENET = (
    "The file of `--features` is SqueezeNet 1.1 trained on ImageNet: the convolutions that "
    "DeepCognition/keras-squeezenet publishes, as safetensors in torchvision's names, with their normalization named "
    "as [metrics](../metrics.md) describes. With torchvision's weights distances in its features are others; all other "
    "numbers do without the file."
)


def in_squeezenet(records: Mapping[str, RunRecord]) -> bool:
    """Whether one of the runs measured a distance in features of SqueezeNet."""
    return any(one.name.startswith(FdSqueezeNet.name) for record in records.values() for one in record.metrics)


def sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], lines: int = 1) -> Image.Image:
    """Rows of images, each with a text of so many lines below it."""
    side, margin, line = 72, 8, 13  # pixels
    height = side + lines * line
    made = Image.new("RGB", (max(map(len, rows)) * (side + margin), len(rows) * height), "white")
    draw = ImageDraw.Draw(made)
    for down, row in enumerate(rows):
        for across, (image, text) in enumerate(row):
            corner = (across * (side + margin) + margin // 2, down * height)
            made.paste(image.convert("RGB").resize((side, side), Image.Resampling.NEAREST), corner)
            draw.text((corner[0], corner[1] + side), text, fill="black", font_size=10, spacing=1)
    return made


def first_pictures(
    rows: Sequence[tuple[str, CellRecord]], run: Path, prefix: str, names: Mapping[int, str]
) -> Iterator[str]:
    """The first picture of each class of cells, under a title each, and what evaluation models see in it.

    Of a ``run`` whose pictures are not here, the sheet that was drawn of them when they were, which has their digest in
    its name behind ``prefix``; nothing where there is none. ``names`` are those of the classes.
    """
    firsts = [{one.target: one for one in reversed(cell.pictures)} for _, cell in rows]
    shown = [[each[target] for target in sorted(each)] for each in firsts]
    # a picture's path ends with the digest of its pixels
    paths = "\n".join(one.path for each in shown for one in each)
    name = f"{prefix}-{hashlib.sha256(paths.encode()).hexdigest()[:8]}.png"
    path = RESULTS / "figures" / name
    if paths and all((run / one.path).is_file() for each in shown for one in each):
        sheet([[(Image.open(run / one.path), _said(one, names)) for one in each] for each in shown]).save(
            path, optimize=True
        )
    if not path.is_file():
        return
    yield (
        "The first image of each class of a network, row by row, with the class that the evaluation models see in it, "
        "in brackets where they reject the image. Real images are left out: the report of the run has them."
    )
    yield "\n".join(
        f"{number}. {title} (`{cell.defense}`, seed {cell.seed})" for number, (title, cell) in enumerate(rows, 1)
    )
    yield f"![What the attacks draw](figures/{name})"


def _said(picture: Picture, names: Mapping[int, str]) -> str:
    """The class that evaluation models see, in brackets where they reject the picture; empty where none judged it."""
    if picture.named is None:
        return ""
    seen = names.get(picture.named, str(picture.named))
    return f"({seen})" if picture.accepted is False else seen


def remove_unused(prefix: str, parts: Sequence[str]) -> None:
    """Remove sheets of a page that its ``parts`` no longer show."""
    for old in (RESULTS / "figures").glob(f"{prefix}-*.png"):
        if not any(f"(figures/{old.name})" in part for part in parts):
            old.unlink()


def pictures(prefix: str) -> Callable[[Curve], str]:
    """What draws sweeps into files beside the pages, in the place of those of before, and gives the Markdown that
    shows them."""
    folder, number = RESULTS / "figures", count(1)
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"{prefix}-*.svg"):
        old.unlink()

    def picture(curve: Curve) -> str:
        name = f"{prefix}-{next(number)}.svg"
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "leakbench"}):
            sweep_figure(curve).savefig(folder / name, facecolor="white", metadata={"Date": None, "Creator": None})
        return f"![{markdown(curve.title)}](figures/{name})"

    return picture
