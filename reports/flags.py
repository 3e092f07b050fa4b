"""What a reader must know before trusting a run's numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leakbench.leakage.controls import ANN
from leakbench.leakage.inversion.class_evidence import ACCEPTED, accepted_share
from leakbench.leakage.inversion.gates import below_floor
from leakbench.leakage.inversion.kind import Inversion
from leakbench.leakage.inversion.resistance import NETWORKS
from leakbench.leakage.inversion.verdict import POSITIVE
from leakbench.leakage.membership.kind import Membership
from leakbench.metrics.class_leaks import NETWORKS as NAMES
from leakbench.records import AttackRow, CellRecord, Environment, Index, RunRecord
from leakbench.reports.audited import LIMIT, of_one_network
from leakbench.reports.disagreement import headline_title, statistics_apart
from leakbench.reports.report import Report
from leakbench.reports.summary import JUDGED, KES, NOISE, REAL, SMALL_N, Group, label_of
from leakbench.reports.vocabulary import (
    in_full,
    index_text,
    interval,
    plain,
    value_of,
)

ACCURACY, ANN_ACCURACY = "accuracy", "ann_accuracy"
ENSEMBLE = "ensemble"
"""all evaluation models together, in a record's list of them"""
KEPT = 0.5
"""share of what an ANN has above chance, below which a defence has lost most of it"""
OFF = 0.05
"""a fresh draw of an anchor that is further than this from its end of the scale is told"""
TOLERANCE = 0.01
"""by which an interval may miss the scale's end: what indices are written to"""
_FEW_PATHS = 3
"""more that are missing for one reason are counted"""
DISAGREE = 0.25
"""between the intervals of judge accuracy's and KES's index"""


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


POORER = Flag(
    True,
    "A poorer record",
    "A record with more of this grid lies beside it and was kept: results.json, with its page report.html.",
)


def section(report: Report) -> dict[str, Any]:
    return {"count": len(report.flags)}


def flags(record: RunRecord, groups: Sequence[Group], refused_images: Sequence[tuple[str, str]]) -> list[Flag]:
    """All flags, serious ones first. ``refused_images``: (path, why it is not shown)."""
    raised = [*_incomplete(record), *_bad_cells(record), *_not_isolated(record), *_environments(record)]
    for group in groups:
        raised += [
            *_at_chance(record, group),
            *_forgetful(record, group),
            *_forced(group),
            *_at_the_floor(record, group),
            *_rows(group.rows.values(), group.title),
            *_scales(group),
            *_anchors(group),
            *_controls(group),
            *_disagreement(group),
            *_statistics(group),
        ]
        raised += [*_small(group), *(_seeds(record, group.title, _networks(group)) if group.attack_metrics() else [])]
    raised += _members(record)
    raised += [*_warnings(record), *_images(refused_images)]
    return sorted(raised, key=lambda flag: not flag.serious)


def _incomplete(record: RunRecord) -> list[Flag]:
    raised = []
    if not record.complete:
        raised.append(
            Flag(
                True,
                "Incomplete run",
                "It was stopped before its last cell: what is missing here was not run.",
            )
        )
    if not any(cell.defense for cell in record.cells):
        raised.append(Flag(True, "No cells", "Nothing was run: there is nothing to report."))
    return raised


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

    raised = []
    failed = [item(cell) for cell in record.cells if cell.status == "failed"]
    if failed:
        text = "An error stopped them. A failed attack is no evidence for a defence."
        raised.append(Flag(True, f"{_count(len(failed), 'cell')} failed", text, _merged(failed)))
    skipped = [item(cell) for cell in record.cells if cell.status == "not-applicable"]
    if skipped:
        text = "Nothing broke: for the reason beside each, there was nothing to compute."
        raised.append(Flag(False, f"{_count(len(skipped), 'cell')} not applicable", text, _merged(skipped)))
    silent = [item(cell) for cell in record.cells if cell.status == "no-signal"]
    if silent:
        text = (
            "The network gave the attack no signal: constant outputs, zero or misleading gradients, or logits that are "
            "NaN or infinite. This is no sign of protection: gradients may be masked, or the network may be broken."
        )
        raised.append(Flag(True, f"{_count(len(silent), 'cell')} without a signal", text, _merged(silent)))
    return raised


def _not_isolated(record: RunRecord) -> list[Flag]:
    """Attacks and defences that ran beside data and evaluation models and are not built in."""
    items = [
        Item(f"{plugin.name} ({plugin.kind.replace('defense', 'defence')})", plugin.ran)
        for plugin in record.plugins
        if plugin.kind in ("attack", "defense") and plugin.ran.startswith("not isolated")
    ]
    if not items:
        return []
    text = (
        "They ran in a process that also holds the private data and the evaluation models: their numbers are true of "
        "honest plugins only."
    )
    return [Flag(True, f"{_count(len(items), 'plugin')} not isolated", text, tuple(items))]


def _environments(record: RunRecord) -> list[Flag]:
    """Artifacts that were made in several places, which may round or draw otherwise."""
    fields = [name for name in Environment.model_fields if name not in ("threads", "artifacts")]
    values = {name: list(dict.fromkeys(getattr(one, name) for one in record.environments)) for name in fields}
    differ = {name: distinct for name, distinct in values.items() if len(distinct) > 1}
    if not differ:
        return []
    made_by = "; ".join(f"{' and '.join(f'{name} {value}' for value in distinct)}" for name, distinct in differ.items())
    text = (
        f"The numbers come from artifacts made by {made_by}: they need not be those of either alone. "
        "A run with an empty --cache makes all of them in one place."
    )
    return [Flag(True, "Artifacts of several environments", text)]


def _at_chance(record: RunRecord, group: Group) -> list[Flag]:
    """Defences in question of which some network knows no class."""
    classes = _classes(record, group)
    ignorant = {label: found for label in group.evaluated if (found := _ignorant(group, label, classes))}
    untaught = _untaught(group, classes)
    if not ignorant:
        return untaught
    items = []
    for label, found in ignorant.items():
        experiment = group.experiments[label, ""]
        accuracy, networks = experiment.overall(ACCURACY), len(experiment.cells)
        text = in_full(group.vocabulary.unit(ACCURACY), accuracy) if accuracy else ""
        items.append(Item(label, text if found == networks else f"{found} of {networks} networks; all: {text}"))
    text = (
        f"A guess among {classes} classes is right as often. A network that has learnt nothing leaks nothing: that is "
        "no protection."
    )
    title = f"{_count(sum(ignorant.values()), 'network')} at chance, {group.title}"
    return [*untaught, Flag(True, title, text, tuple(items))]


def _forgetful(record: RunRecord, group: Group) -> list[Flag]:
    """Attacked defences that keep less than half of what their ANN has above chance, those at chance aside."""
    classes = _classes(record, group)
    items = []
    for label in (label for label in group.evaluated if label in group.attacked):
        experiment = group.experiments.get((label, ""))
        accuracy, ann = (experiment.overall(name) if experiment else None for name in (ACCURACY, ANN_ACCURACY))
        if not classes or accuracy is None or ann is None or _ignorant(group, label, classes):
            continue
        if accuracy.value - 1 / classes < (ann.value - 1 / classes) * KEPT:
            unit = group.vocabulary.unit(ACCURACY)
            items.append(Item(label, f"{in_full(unit, accuracy)}, of its ANN {in_full(unit, ann)}"))
    text = (
        "They keep less than half of what their ANN has above chance. Converted networks may need more time steps (-T) "
        "or lower thresholds, where a parameter sets these. What attacks read from weights need not fall with it."
    )
    return [Flag(False, f"Most accuracy lost, {group.title}", text, tuple(items))] if items else []


def _classes(record: RunRecord, group: Group) -> int:
    """Of the group's data set; 0 where it is not known."""
    return next((len(info.classes) for info in record.datasets if info.name == group.dataset), 0)


def _ignorant(group: Group, label: str, classes: int) -> int:
    """How many networks of a row are right no more often than a guess, each by the interval of its own test images.

    That of their mean is wide where a few differ, and would say so of networks that all know their classes.
    """
    experiment = group.experiments.get((label, ""))
    reading = experiment.reading(ACCURACY) if experiment and classes else None
    values = [value for _, value in reading.values] if reading else []
    return sum((value.value if value.low is None else value.low) <= 1 / classes for value in values)


def _untaught(group: Group, classes: int) -> list[Flag]:
    """An ANN that defences are compared with knows no class."""
    if not _ignorant(group, ANN, classes):
        return []
    accuracy = group.experiments[ANN, ""].overall(ACCURACY)
    text = (
        f"A guess among {classes} classes is right as often: what attacks draw from it, or from its conversion, does "
        "not show whether they work. An ANN of your own needs its trained weights, and outputs in the order of the "
        "data set's classes."
    )
    item = Item(ANN, in_full(group.vocabulary.unit(ACCURACY), accuracy) if accuracy else "")
    return [Flag(True, f"The unprotected ANN is at chance, {group.title}", text, (item,))]


def _forced(group: Group) -> list[Flag]:
    """The headline is forced accuracy, as the evaluation models take too few of what attacks draw for images."""
    cells = (
        cell
        for (label, attack), experiment in group.experiments.items()
        if attack and group.plugin(label) in POSITIVE
        for cell in experiment.cells
    )
    share = accepted_share(cells)
    if group.headline != JUDGED or share is None:
        return []
    text = (
        f"Of the images that the attacks drew from unprotected networks and that are classified correctly, the "
        f"evaluation models accept {100 * share:.1f} % as showing a class. Below {100 * ACCEPTED:.0f} % "
        "they reject the attacks' style: here their answer has to be a class, and an image without content may count "
        "as recognised. Look at the images."
    )
    return [Flag(False, f"“None of these” is not counted, {group.title}", text)]


def _at_the_floor(record: RunRecord, group: Group) -> list[Flag]:
    """Verdicts on classes by evaluation models that are too weak for one by their own test, of more images."""
    decided = [verdict for verdict in group.verdicts.values() if verdict.outcome != "inconclusive" and verdict.classes]
    tested = [one.accuracy for one in record.judges if (one.dataset, one.name) == (group.dataset, ENSEMBLE)]
    real = group.reading("", REAL, JUDGED)
    if not decided or not tested or real is None:
        return []
    why = below_floor(tested[0].value, 1 / max(len(verdict.classes) for verdict in decided))
    if not why:
        return []
    text = (
        f"By their own test on {tested[0].n:,} images {why}. Verdicts go by the real images that indices are measured "
        f"from, of which they classify {real.mean:.2f}: with other images there might be no verdict."
    )
    return [Flag(True, f"Evaluation models are about at their floor, {group.title}", text)]


def _anchors(group: Group) -> list[Flag]:
    if not group.attack_metrics():
        return []
    raised = []
    for name in (NOISE, REAL):
        reading = group.reading("", name, JUDGED)
        if JUDGED in group.attack_metrics() and (reading is None or math.isnan(reading.mean)):
            raised.append(
                Flag(
                    True,
                    f"No {name} anchor for {group.title}",
                    f"There is no judge accuracy of {name} images: the attacks' values have no scale.",
                )
            )
    items = []
    for metric in group.attack_metrics():
        declared = group.vocabulary.describe(metric)
        if not declared.needs_same_n:
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
                    counts = {value.n for _, value in reading.values} if reading else set()
                    if counts - anchored:
                        text = f"n={_listed(counts)}, {name} anchor n={_listed(anchored)}"
                        items.append(Item(f"{attack} on {defense}, {declared.title}", text))
    if items:
        text = "A Fréchet distance depends on the number of images: don't compare these with their anchors."
        raised.append(Flag(True, f"Anchors at another n, {group.title}", text, tuple(items)))
    return raised


def _controls(group: Group) -> list[Flag]:
    if JUDGED not in group.attack_metrics():
        return []
    return _missing(Inversion.controls, {group.plugin(label) for label in group.defenses}, group.title)


def _missing(controls: Mapping[str, str], ran: Collection[str], title: str) -> list[Flag]:
    """The controls without which something is unknown of the attacks. ``ran``: plugins whose networks there are."""
    return [
        Flag(True, f"No {control} control for {title}", f"Without it it is unknown {unknown}.")
        for control, unknown in controls.items()
        if unknown and control not in ran
    ]


def _members(record: RunRecord) -> list[Flag]:
    """Of attacks on members: rows that are not valid, controls that are missing, a single seed."""
    cells = [cell for cell in record.cells if cell.leakage == Membership.name and not cell.of]
    rows = [row for row in record.rows if row.leakage == Membership.name]
    raised = []
    for dataset, model in dict.fromkeys((cell.dataset, cell.model) for cell in cells):
        title = f"members, {dataset} · {model}"
        here = [cell for cell in cells if (cell.dataset, cell.model) == (dataset, model)]
        raised += _rows([row for row in rows if (row.dataset, row.model) == (dataset, model)], title)
        ran = {cell.defense_name for cell in here if cell.status == "ok"}
        controls = Membership.controls
        raised += _missing(controls, ran, title)
        raised += _seeds(record, title, {cell.seed for cell in here}, members=True)
    return raised


def _rows(rows: Iterable[AttackRow], title: str) -> list[Flag]:
    """Those of the defences in question that are not valid."""
    asked = [row for row in rows if not row.control]
    raised = []
    for validity, words, text in (
        (
            "gradient masking suspected",
            "under suspicion of gradient masking",
            "More steps or more access did worse: a low value there is no protection.",
        ),
        (
            "decoys suspected",
            "under suspicion of decoys",
            "The network is certain of images in which the evaluation models see nothing, and of the unprotected "
            "network's they see the classes: it may have been taught patterns without content, which draw attacks "
            "away from what it knows.",
        ),
        (
            "optimisation failure",
            "with a failed optimisation",
            "The victim itself does not classify the images as the target class: a low value there is no protection.",
        ),
        (
            "invalid",
            "invalid",
            "Such an attack was not seen to work where nothing protects, or gets something out of a network that never "
            "learnt what it is after: it says nothing about a defence.",
        ),
    ):
        items = [Item(_row_label(row), row.reason) for row in asked if row.validity == validity]
        if items:
            raised.append(Flag(True, f"{_count(len(items), 'row')} {words}, {title}", text, _merged(items)))
    return raised


def _row_label(row: AttackRow) -> str:
    return f"{row.attack} on {row.defense}"


def _scales(group: Group) -> list[Flag]:
    """Metrics without a scale, and fresh draws of the anchors that miss their end of it."""
    raised = []
    without: list[Item] = []
    for metric in group.indexed():
        indices = [index for row in group.rows.values() for index in row.indices if index.metric == metric]
        if not any(value_of(index) for index in indices):
            why = next((index.reason for index in indices if index.reason), "no reason was recorded")
            without.append(Item(group.vocabulary.describe(metric).title, why))
    if without:
        title = f"{_count(len(without), 'metric')} without a scale, {group.title}"
        text = "Noise scores as well as real images there, or an anchor is missing: no leakage index."
        judged = not any(value_of(group.index(*key)) for key in group.rows)
        raised.append(Flag(judged, title, text, tuple(without)))
    missed: dict[bool, list[Item]] = {True: [], False: []}
    for metric, scale in group.scales.items():
        for anchor, end, fresh in ((NOISE, 0, scale.fresh_noise), (REAL, 1, scale.fresh_real)):
            value, ends = value_of(fresh), _ends(fresh)
            if value is None:
                continue
            outside = ends is not None and max(ends[0] - end, end - ends[1]) > TOLERANCE
            if outside or abs(value.value - end) > OFF:
                text = f"{index_text(fresh)} instead of {end}, off by {plain('share', abs(value.value - end))}"
                where = f"{anchor} images, {group.vocabulary.describe(metric).title}"
                missed[outside].append(Item(where, text))
    for outside, items in missed.items():
        if items:
            title = f"Fresh {'draws' if len(items) > 1 else 'draw'} off the scale's ends, {group.title}"
            text = (
                "Anchors that are drawn and scored again should have indices of 0 and 1. These intervals exclude that: "
                "other indices by these metrics are off by about as much."
                if outside
                else "Anchors that are drawn and scored again should have indices of 0 and 1. These are off, but their "
                "intervals include it."
            )
            raised.append(Flag(outside, title, text, tuple(items)))
    return raised


def _ends(index: Index | None) -> tuple[float, float] | None:
    value = value_of(index)
    return interval(value) if value else None


def _disagreement(group: Group) -> list[Flag]:
    """Rows on which judge accuracy and KES tell different stories."""
    items = []
    for key, row in group.rows.items():
        judged, kes = group.index(*key), group.index(*key, KES)
        ends, other = _ends(judged), _ends(kes)
        if ends and other and max(ends[0] - other[1], other[0] - ends[1]) > DISAGREE:
            items.append(
                Item(
                    _row_label(row), f"index {index_text(judged)} by {headline_title(group)}, {index_text(kes)} by KES"
                )
            )
    if not items:
        return []
    text = (
        "Images that only the evaluation models recognise may be adversarial; images that only train a fresh network "
        "carry information that the evaluation models miss."
    )
    return [Flag(False, f"{headline_title(group).capitalize()} and KES disagree, {group.title}", text, tuple(items))]


def _statistics(group: Group) -> list[Flag]:
    """Verdicts whose worst case looks otherwise in feature statistics."""
    worst = [(verdict.defense, verdict.attack) for verdict in group.verdicts.values() if verdict.attack]
    items = tuple(Item(_row_label(group.rows[key]), text) for key in worst if (text := statistics_apart(group, *key)))
    if not items:
        return []
    text = "The worst case leaks by some metrics and hardly by others: consider all of them, and the images."
    return [Flag(False, f"Metrics disagree on the worst case, {group.title}", text, items)]


def _networks(group: Group) -> set[int]:
    """The seeds of the defences in question, each of another network."""
    return {
        cell.seed
        for (defense, _), experiment in group.experiments.items()
        if defense in group.evaluated
        for cell in experiment.cells
    }


def _seeds(record: RunRecord, title: str, seeds: Collection[int], members: bool = False) -> list[Flag]:
    given = of_one_network(record)
    if not seeds or (len(seeds) > 1 and not given):
        return []
    if members:
        one = "network" if given else "seed"
        text = "One network can be shown to leak, and says nothing of others."
        return [Flag(False, f"A single {one}, {title}", text)]
    runs = f"--seeds {NAMES}, to say that they resist --seeds {NETWORKS}."
    text = LIMIT if given else f"One network can be shown to leak. To name the leaked classes takes {runs}"
    return [Flag(False, f"A single {'network' if given else 'seed'}, {title}", text)]


def _small(group: Group) -> list[Flag]:
    sizes = {
        value.n
        for experiment in group.experiments.values()
        for cell in experiment.cells
        for value in cell.values
        if cell.attack and (value.metric == JUDGED or group.vocabulary.describe(value.metric).needs_same_n)
    }
    if not sizes or min(sizes) >= SMALL_N:
        return []
    text = f"Some values are of n={min(sizes)} images; below {SMALL_N} most differences are not significant."
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
    return tuple(Item(", ".join(dict.fromkeys(names)), *key) for key, names in where.items())


def _images(refused: Sequence[tuple[str, str]]) -> list[Flag]:
    if not refused:
        return []
    paths: dict[str, list[str]] = {}
    for path, why in dict.fromkeys(refused):
        paths.setdefault(why.replace(f"{path!r}", "the file"), []).append(path)
    items = [
        Item(f"{', '.join(of[:_FEW_PATHS])}{f' and {len(of) - _FEW_PATHS} more' * (len(of) > _FEW_PATHS)}", why)
        for why, of in paths.items()
    ]
    count = sum(map(len, paths.values()))
    return [Flag(False, f"{_count(count, 'image')} not shown", "They are missing under “Images”.", tuple(items))]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(numbers: set[int]) -> str:
    return ", ".join(f"{number:,}" for number in sorted(numbers))
