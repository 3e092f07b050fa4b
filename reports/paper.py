"""The numbers that the PrivateSNN paper printed (Kim, Venkatesha and Panda, AAAI 2022), beside ours where the
setting is the same: its data sets, its VGG16, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from leakbench.bench.records import CellRecord
from leakbench.reports.summary import Group
from leakbench.reports.vocabulary import describe, in_full

CITATION = "Kim, Venkatesha and Panda: PrivateSNN, AAAI 2022, arXiv 2104.03414"
MODEL = "vgg16"


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
    distilled: bool = True
    """False for the paper's rows of PrivateSNN without on-device distillation (``od=false``)"""


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
    Printed("Table 3", "cifar10", "privatesnn", "", "accuracy", "86.9 %", 150, distilled=False),
    Printed("Table 4", "cifar10", "datafree", "reconversion", "fid", "354.8"),
    Printed("Table 4", "cifar10", "privatesnn", "reconversion", "fid", "448.2"),
    Printed("Table 4", "cifar10", "datafree", "direct", "fid", "447.9"),
    Printed("Table 4", "cifar10", "privatesnn", "direct", "fid", "422.4"),
    Printed("Table 5", "cifar10", "ann", "", "accuracy", "91.5 %"),
    Printed("Table 5", "cifar10", "sengupta2019", "", "accuracy", "91.2 %", 500),
    Printed("Table 5", "cifar10", "sengupta2019", "", "energy_ratio_int32", "27.9×", 500),
    Printed("Table 5", "cifar10", "han2020", "", "energy_ratio_int32", "53.9×", 250),
    Printed("Table 5", "cifar10", "privatesnn", "", "energy_ratio_int32", "55.8×", 150),
)
"""Table 5 names no constants; INT32 is the only set under which its ratios are plausible (method, section 7).
Table 4 names no number of images."""


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


def beside(group: Group) -> list[Beside]:
    """Every printed number that this group measured too; empty where the setting is not the paper's."""
    if group.model != MODEL:
        return []
    rows = []
    for printed in PRINTED:
        if printed.dataset != group.dataset:
            continue
        for place in group.places.values():
            cells = [cell for cell in place.cells if _matches(printed, cell)]
            values = [value for cell in cells for value in cell.values if value.metric == printed.metric]
            if not values:
                continue
            metric = describe(printed.metric)
            rows.append(
                Beside(
                    printed.source,
                    f"{place.attack} on {place.defense}" if place.attack else place.defense,
                    metric.title,
                    printed.printed,
                    str(printed.timesteps or "–"),
                    "; ".join(in_full(metric, value) for value in values),
                    ", ".join(dict.fromkeys(str(cell.timesteps or "–") for cell in cells)),
                )
            )
    return rows


def _matches(printed: Printed, cell: CellRecord) -> bool:
    distilled = cell.defense_params.get("od", True) is not False
    return (
        (cell.defense_name or cell.defense) == printed.defense
        and cell.attack == printed.attack
        and (printed.defense != "privatesnn" or distilled == printed.distilled)
    )
