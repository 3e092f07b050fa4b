"""The numbers that the PrivateSNN paper printed (Kim, Venkatesha and Panda, AAAI 2022), beside ours on its data sets,
with what differs: another network than its VGG16, fewer synthetic images or epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leakbench.metrics.energy import PAPER_RATIO
from leakbench.records import CellRecord, DatasetInfo
from leakbench.reports.summary import Experiment, Group
from leakbench.reports.vocabulary import in_full

CITATION = "Kim, Venkatesha and Panda: PrivateSNN, AAAI 2022, arXiv 2104.03414"
MODEL, MODEL_TITLE = "vgg16", "VGG16"


DISTILLED, ENCRYPTED, CONVERTED = "privatesnn", "privatesnn without distillation", "datafree"
"""the rows of Table 3 from last to first: DC + CET + OD, DC + CET, DC"""


@dataclass(frozen=True)
class Named:
    """A row of Table 1 or 3: what the paper calls it, and whether it says that it addresses either leakage."""

    name: str
    data: bool
    classes: bool


TABLE_1 = {
    "knowledge_within": Named("Haroush et al. (2020)", True, False),
    "zskd": Named("Nayak et al. (2019)", True, False),
    "sengupta2019": Named("Sengupta et al. (2019)", False, False),
    "han2020": Named("Han et al. (2020)", False, False),
    "lee2020": Named("Lee et al. (2020)", False, True),
    "tdbn": Named("Zheng et al. (2020)", False, True),
    DISTILLED: Named("PrivateSNN", True, True),
}
NAMES = {
    **{method: row.name for method, row in TABLE_1.items() if method != DISTILLED},
    "rueckauer2017": "Rueckauer et al. (2017)",
    "zambrano2019": "Zambrano et al. (2019)",
}
"""what the paper's tables call a method"""
TABLE_3 = {
    CONVERTED: Named("DC", True, False),
    ENCRYPTED: Named("DC + CET", True, True),
    DISTILLED: Named("DC + CET + OD", True, True),
}


@dataclass(frozen=True)
class Printed:
    """One number of the paper: where it stands, what of ours it belongs to, and how it was printed."""

    source: str
    dataset: str
    defense: str
    attack: str
    metric: str
    printed: str
    timesteps: int | None = None

    @property
    def text(self) -> str:
        """The number with its T, where the paper gives one."""
        return f"{self.printed} (T = {self.timesteps})" if self.timesteps else self.printed


PRINTED = (
    Printed("Table 2", "cifar10", "ann", "", "accuracy", "91.6 %"),
    Printed("Table 2", "cifar10", "rueckauer2017", "", "accuracy", "90.9 %"),
    Printed("Table 2", "cifar10", "sengupta2019", "", "accuracy", "91.5 %"),
    Printed("Table 2", "cifar10", "han2020", "", "accuracy", "91.4 %"),
    Printed("Table 2", "cifar10", "zambrano2019", "", "accuracy", "89.7 %"),
    Printed("Table 2", "cifar10", "privatesnn", "", "accuracy", "89.2 %", 150),
    Printed("Table 2", "cifar100", "ann", "", "accuracy", "64.3 %"),
    Printed("Table 2", "cifar100", "sengupta2019", "", "accuracy", "62.7 %"),
    Printed("Table 2", "cifar100", "zambrano2019", "", "accuracy", "63.4 %"),
    Printed("Table 2", "cifar100", "privatesnn", "", "accuracy", "62.3 %", 200),
    Printed("Table 2", "tinyimagenet", "ann", "", "accuracy", "51.9 %"),
    Printed("Table 2", "tinyimagenet", "sengupta2019", "", "accuracy", "50.6 %"),
    Printed("Table 2", "tinyimagenet", "privatesnn", "", "accuracy", "50.7 %", 200),
    Printed("Table 3", "cifar10", "datafree", "", "accuracy", "82.8 %", 150),
    Printed("Table 3", "cifar10", ENCRYPTED, "", "accuracy", "86.9 %", 150),
    Printed("Table 3", "cifar10", "privatesnn", "", "accuracy", "89.2 %", 150),
    Printed("Table 4", "cifar10", "datafree", "reconversion", "fid", "354.8"),
    Printed("Table 4", "cifar10", "privatesnn", "reconversion", "fid", "448.2"),
    Printed("Table 4", "cifar10", "datafree", "direct", "fid", "447.9"),
    Printed("Table 4", "cifar10", "privatesnn", "direct", "fid", "422.4"),
    Printed("Table 5", "cifar10", "ann", "", "accuracy", "91.5 %"),
    Printed("Table 5", "cifar10", "sengupta2019", "", "accuracy", "91.2 %", 500),
    Printed("Table 5", "cifar10", "sengupta2019", "", PAPER_RATIO, "27.9×", 500),
    Printed("Table 5", "cifar10", "han2020", "", "accuracy", "91.4 %", 250),
    Printed("Table 5", "cifar10", "han2020", "", PAPER_RATIO, "53.9×", 250),
    Printed("Table 5", "cifar10", "privatesnn", "", "accuracy", "89.2 %", 150),
    Printed("Table 5", "cifar10", "privatesnn", "", PAPER_RATIO, "55.8×", 150),
)
"""Table 5's ratios stand beside what is counted as it counts, and beside no other ratio (docs/method.md, Energy). It
names no constants: INT32 is the only set under which they are plausible. Table 4 names no number of images."""


SYNTHETIC_IMAGES = {"cifar10": 5000, "cifar100": 10_000, "tinyimagenet": 10_000}
"""of DC and what is built on it"""
SIDES = {"tinyimagenet": 64}
"""pixels a side of data sets that are about in other sizes, as they were published; the paper names none"""
EPOCHS = 20
"""of encryption training"""
BY_AUTHORS = {
    "zskd": {"samples": 40_000, "epochs": 500},
    "knowledge_within": {"samples": 40_000, "epochs": 200},
    "zambrano2019": {"epochs": 10},
    "deng_gu2021": {"epochs": 200},
    "bu2022": {"epochs": 300},
    "stbp": {"epochs": 100},
    "tdbn": {"epochs": 100},
    "lee2020": {"epochs": 150},
}
"""of other methods that are trained, by their authors: the paper does not say how long it trained them"""
FROM_SCRATCH = ("deng_gu2021", "bu2022")
"""whose authors train a network from the start, where ours is fine-tuned from the ANN"""
_NOUNS = {"samples": "synthetic images", "epochs": "epochs"}


@dataclass(frozen=True)
class Beside:
    """One line of the comparison: the paper's number and ours."""

    source: str
    row: str
    metric: str
    paper: str
    paper_timesteps: str
    ours: str
    our_timesteps: str


def in_paper(group: Group) -> bool:
    """Whether the paper prints numbers for this data set; :func:`unlike_paper` says if they are another network's."""
    return any(printed.dataset == group.dataset for printed in PRINTED)


def printed_for(group: Group, source: str, experiment: Experiment | None, metric: str) -> Printed | None:
    """What that table of the paper has for this experiment; None where the data set is not the paper's, or where
    another experiment is closer to it: one at the paper's T."""
    if experiment is None or not in_paper(group):
        return None
    rows = (row for row in PRINTED if (row.source, row.dataset, row.metric) == (source, group.dataset, metric))
    return next((row for row in rows if any(experiment is candidate for candidate in _closest(row, group))), None)


def printed_timesteps(group: Group, source: str, method: str) -> int | None:
    """The T that this table of the paper gives the method's row; None where it gives none, or for other data."""
    if not in_paper(group):
        return None
    rows = (row for row in PRINTED if (row.source, row.dataset, row.defense) == (source, group.dataset, method))
    return next((row.timesteps for row in rows if row.timesteps), None)


def beside(group: Group) -> list[Beside]:
    """Every printed number that this group measured too; empty where the data set is not the paper's."""
    if not in_paper(group):
        return []
    rows = []
    for printed in PRINTED:
        if printed.dataset != group.dataset:
            continue
        for experiment in _closest(printed, group):
            cells = [cell for cell in experiment.cells if _matches(printed, cell)]
            values = [value for cell in cells for value in cell.values if value.metric == printed.metric]
            metric = group.vocabulary.describe(printed.metric)
            rows.append(
                Beside(
                    printed.source,
                    f"{experiment.attack} on {experiment.defense}" if experiment.attack else experiment.defense,
                    metric.title,
                    printed.printed,
                    str(printed.timesteps or "–"),
                    "; ".join(in_full(metric.unit, value) for value in values),
                    ", ".join(dict.fromkeys(str(cell.timesteps or "–") for cell in cells)),
                )
            )
    return rows


def unlike_paper(group: Group, datasets: Sequence[DatasetInfo]) -> list[str]:
    """What is not as in the paper where its numbers stand beside ours: the images, the network, then what was made on
    less or more than there, a line a defence. Empty where the data set is not the paper's."""
    if not in_paper(group):
        return []
    images = SYNTHETIC_IMAGES[group.dataset]
    rows = (printed for printed in PRINTED if printed.dataset == group.dataset)
    beside_ours = {experiment.defense: _that_worked(experiment) for row in rows for experiment in _closest(row, group)}
    lines = [f"the network is {group.model} (the paper: {MODEL_TITLE})"] if beside_ours and group.model != MODEL else []
    side = SIDES.get(group.dataset)
    shrunk = [f"{info.height}x{info.width}" for info in datasets if info.name == group.dataset and info.height != side]
    if beside_ours and side and shrunk:
        lines.insert(0, f"images are {shrunk[0]} (as published: {side}x{side})")
    by_method: dict[str, dict[str, CellRecord]] = {}
    for (label, _), experiment in group.experiments.items():
        cell = _that_worked(experiment)
        if cell.status == "ok":
            by_method.setdefault(method_of(cell), {}).setdefault(label, cell)
    for method in BY_AUTHORS:
        labels = by_method.get(method, {})
        beside_ours |= {label: labels[label] for label in group.apart_from_sweeps(list(labels))}
    for label, cell in beside_ours.items():
        method, params = method_of(cell), cell.defense_params
        if method in TABLE_3:
            theirs, whose = {"samples": images, "epochs": EPOCHS}, "the paper"
        else:
            theirs, whose = BY_AUTHORS.get(method, {}), "its authors"
        trained = method != CONVERTED and params.get("finetune", True)
        parts = [
            f"{_extent(name, value, params)} ({whose}: {right:,}{', from scratch' if method in FROM_SCRATCH else ''})"
            for name, right in theirs.items()
            if isinstance(value := params.get(name), int) and value != right and (trained or name != "epochs")
        ]
        if parts:
            lines.append(f"{label}: {', '.join(parts)}")
    return lines


def _that_worked(experiment: Experiment) -> CellRecord:
    """A cell of it that worked, if one did."""
    return min(experiment.cells, key=lambda cell: cell.status != "ok")


def _extent(name: str, value: int, params: Mapping[str, object]) -> str:
    """As in "5 epochs", "1 epoch, at least 1,000 steps"."""
    noun = _NOUNS[name] if value != 1 else _NOUNS[name][:-1]
    least = params.get("least_steps") if name == "epochs" else None
    return f"{value:,} {noun}{f', at least {least:,} steps' if isinstance(least, int) and least else ''}"


def method_of(cell: CellRecord) -> str:
    """The paper's row that a cell's defence belongs to: its plugin, and where PrivateSNN leaves out a step what is
    left of it."""
    name = cell.defense_name or cell.defense
    if name == DISTILLED and cell.defense_params.get("cet", True) is False:
        return CONVERTED
    if name == DISTILLED and cell.defense_params.get("od", True) is False:
        return ENCRYPTED
    return name


def _closest(printed: Printed, group: Group) -> list[Experiment]:
    """Those that have the number: of a sweep those at the paper's T, and of these those that were attacked, or the
    method by itself."""
    experiments = [
        experiment
        for experiment in group.experiments.values()
        if any(
            _matches(printed, cell) and any(v.metric == printed.metric for v in cell.values)
            for cell in experiment.cells
        )
    ]
    if printed.timesteps:
        experiments = [
            experiment
            for experiment in experiments
            if any(cell.timesteps == printed.timesteps for cell in experiment.cells)
        ] or experiments
    labels = group.apart_from_sweeps([experiment.defense for experiment in experiments])
    return [experiment for experiment in experiments if experiment.defense in labels]


def _matches(printed: Printed, cell: CellRecord) -> bool:
    return method_of(cell) == printed.defense and cell.attack == printed.attack
