"""What a reader must know before trusting a run's numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leakbench.bench.records import CellRecord, RunRecord
from leakbench.reports.headline import succeeds
from leakbench.reports.summary import JUDGED, NOISE, REAL, SMALL_N, Group, label_of
from leakbench.reports.vocabulary import describe, is_distance


@dataclass(frozen=True)
class Item:
    """One line below a flag; a traceback folds away."""

    where: str
    text: str
    traceback: str = ""


@dataclass(frozen=True)
class Flag:
    """One thing that limits what the numbers say."""

    serious: bool
    title: str
    text: str
    items: tuple[Item, ...] = ()


def flags(record: RunRecord, groups: list[Group], refused_images: list[tuple[str, str]]) -> list[Flag]:
    """All flags, serious ones first. ``refused_images``: (path, why it is not shown)."""
    found = [*_incomplete(record), *_bad_cells(record)]
    for group in groups:
        found += [*_anchors(group), *_controls(group), *_small(group)]
    found += [*_warnings(record), *_images(refused_images)]
    return sorted(found, key=lambda flag: not flag.serious)


def _incomplete(record: RunRecord) -> list[Flag]:
    found = []
    if not record.complete:
        found.append(
            Flag(
                True,
                "Incomplete run",
                "It was stopped before its last cell: what is missing here was not run.",
            )
        )
    if not any(cell.defense for cell in record.cells):
        found.append(Flag(True, "No cells", "Nothing was run: there is nothing to report."))
    return found


def _bad_cells(record: RunRecord) -> list[Flag]:
    several_seeds = len({cell.seed for cell in record.cells}) > 1
    several_groups = len({(cell.dataset, cell.model) for cell in record.cells if cell.defense}) > 1

    def item(cell: CellRecord) -> Item:
        where = label_of(cell)
        if several_groups:
            where += f", {cell.dataset} {cell.model}"
        if several_seeds:
            where += f", seed {cell.seed}"
        return Item(where, cell.reason or "no reason was recorded", cell.traceback)

    found = []
    failed = [item(cell) for cell in record.cells if cell.status == "failed"]
    if failed:
        text = "An error stopped them. A failed attack is no evidence for a defence."
        found.append(Flag(True, f"{_count(len(failed), 'cell')} failed", text, _merged(failed)))
    skipped = [item(cell) for cell in record.cells if cell.status == "not-applicable"]
    if skipped:
        text = "The plugin says that it can't work on this victim."
        found.append(Flag(False, f"{_count(len(skipped), 'cell')} not applicable", text, _merged(skipped)))
    return found


def _anchors(group: Group) -> list[Flag]:
    if not group.attack_metrics():
        return []
    found = []
    for name in (NOISE, REAL):
        reading = group.reading("", name, JUDGED)
        if JUDGED in group.attack_metrics() and (reading is None or math.isnan(reading.mean)):
            found.append(
                Flag(
                    True,
                    f"No {name} anchor for {group.title}",
                    f"There is no judge accuracy of {name} images: the scale of the attacks' values is open.",
                )
            )
    items = []
    for metric in group.attack_metrics():
        if not is_distance(metric):
            continue
        sizes = {
            name: {value.n for _, value in reading.values}
            for name in (NOISE, REAL)
            if (reading := group.reading("", name, metric))
        }
        for defense in group.defenses:
            for attack in group.attacks:
                reading = group.reading(defense, attack, metric)
                for name, anchored in sizes.items():
                    mine = {value.n for _, value in reading.values} if reading else set()
                    if mine - anchored:
                        text = f"n={_listed(mine)}, {name} anchor n={_listed(anchored)}"
                        items.append(Item(f"{attack} on {defense}, {describe(metric).title}", text))
    if items:
        text = "A Fréchet distance depends on the number of images: don't compare these with their anchors."
        found.append(Flag(True, f"Anchors at another n, {group.title}", text, tuple(items)))
    return found


def _controls(group: Group) -> list[Flag]:
    if JUDGED not in group.attack_metrics():
        return []
    found = []
    for plugin, meaning in (
        ("ann", "whether an attack works at all can't be told"),
        ("random", "whether an attack draws from the training data at all can't be told"),
    ):
        if group.named(plugin) is None:
            found.append(Flag(True, f"No {plugin} control for {group.title}", f"Without it {meaning}."))
    ann, random = group.named("ann"), group.named("random")
    weak = [name for name in group.attacks if ann and succeeds(group, ann, name) is False]
    if weak:
        found.append(
            Flag(
                True,
                f"{_count(len(weak), 'attack')} not clearly better than noise on the unprotected ANN, {group.title}",
                "A low value of such an attack on a defence says nothing about the defence.",
                tuple(_beside_noise(group, ann or "", name) for name in weak),
            )
        )
    loud = [name for name in group.attacks if random and succeeds(group, random, name)]
    if loud:
        found.append(
            Flag(
                True,
                f"{_count(len(loud), 'attack')} clearly better than noise on an untrained network, {group.title}",
                "An untrained network knows nothing of the data: only what exceeds this value is a leak.",
                tuple(_beside_noise(group, random or "", name) for name in loud),
            )
        )
    return found


def _beside_noise(group: Group, defense: str, attack: str) -> Item:
    reading, noise = group.reading(defense, attack, JUDGED), group.reading("", NOISE, JUDGED)
    return Item(
        f"{attack} on {defense}",
        f"{reading.short if reading else ''}, noise images {noise.short if noise else ''}",
    )


def _small(group: Group) -> list[Flag]:
    sizes = {
        value.n
        for place in group.places.values()
        for cell in place.cells
        for value in cell.values
        if cell.attack and (value.metric == JUDGED or is_distance(value.metric))
    }
    if not sizes or min(sizes) >= SMALL_N:
        return []
    text = f"Some values rest on no more than n={min(sizes)}; below {SMALL_N} most differences can't be seen."
    return [Flag(True, f"Few images, {group.title}", text)]


def _warnings(record: RunRecord) -> list[Flag]:
    items = _merged([Item(label_of(cell), warning) for cell in record.cells for warning in cell.warnings])
    if not items:
        return []
    return [Flag(False, _count(len(items), "warning"), "Noted while the cells were run.", items)]


def _merged(items: list[Item]) -> tuple[Item, ...]:
    """One item for all that say the same."""
    where: dict[tuple[str, str], list[str]] = {}
    for item in items:
        where.setdefault((item.text, item.traceback), []).append(item.where)
    return tuple(Item(", ".join(dict.fromkeys(names)), *said) for said, names in where.items())


def _images(refused: list[tuple[str, str]]) -> list[Flag]:
    if not refused:
        return []
    items = tuple(Item(path, why) for path, why in dict.fromkeys(refused))
    return [Flag(False, f"{_count(len(items), 'image')} not shown", "The image wall has gaps there.", items)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(numbers: set[int]) -> str:
    return ", ".join(f"{number:,}" for number in sorted(numbers))
