"""Writes docs/results/class-leakage-DATASET.md: verdicts, classes and indices of few defences, and what judged them.

C="--dataset cifar10 --preset quick --model vgg5 -T 64 --seeds 3 --precision bfloat16"
leakbench run $C -a auto,generative_prior,reconversion,direct,inversion -d han2020,datafree,privatesnn \
--public cifar100 --features SQUEEZENET --out runs/cifar10-vgg5
python benchmarks/class_leakage.py runs/cifar10-vgg5
leakbench run --dataset faces --preset quick --seeds 3 --classes 10 --null-networks 20 -a reconversion,inversion \
-d han2020,datafree,privatesnn --out runs/faces
python benchmarks/class_leakage.py runs/faces

All runs of a data set go into one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import result_page
from member_grids import SHARING

from leakbench.leakage.inversion.class_evidence import FORCED
from leakbench.leakage.seed_group import Declarations, seed_group
from leakbench.metrics.frechet import FdSqueezeNet
from leakbench.metrics.verification import VerificationError
from leakbench.records import CellRecord, JudgeInfo, RunRecord, Value
from leakbench.reports.conclusion import needed_to_name, notes_of
from leakbench.reports.grid import GridCell, index_table
from leakbench.reports.summary import NOISE, REAL, Group, class_names, groups
from leakbench.reports.tables import markdown
from leakbench.reports.verdict import Card, cards
from leakbench.reports.vocabulary import bounds, number, value_of

_MEANING = (
    "The *index* is 0 where the evaluation models recognise no more than in images drawn from networks that know "
    "nothing, and 1 where they recognise as much as in real images; it is that of the attack that shows most. A class "
    "is *named* only where its leak is shown on several networks together. *Inconclusive* claims nothing. The *equal "
    "error rate* says how often, of a drawn image and a real one, it is told wrongly from features whether both are of "
    "one class: 0 is never, .5 as good as guessing. That classifiers find a class is not that a person sees it: where "
    "they also accept images with shuffled patches, they may go by features and not by things. Intervals are of 95 %, "
    "over classes and networks, of accuracies over networks. [How to read the report](../read-the-report.md) says what "
    "a verdict takes; *resists* takes `auto` among the attacks. The interval of a worst case allows for the choice of "
    "the attack, that of an attack by itself does not. *Not optimised*: the network is not certain of the attack's "
    "images itself, which says nothing of protection."
)
SHOWN = 2
"""attacks on a defence whose pictures are shown"""
SHARES = ("accuracy", "ann_accuracy")


def main() -> None:
    dataset, records = result_page.read_runs(__doc__)
    result_page.keep(records)
    parts = list(page(records, f"class-leakage-{dataset}"))
    result_page.remove_unused(f"class-leakage-{dataset}", parts)
    result_page.write(
        f"class-leakage-{dataset}.md",
        f"Class leakage: {dataset}",
        "What attacks draw of the classes out of few defences' networks, and what the evaluation models are worth.",
        result_page.of_runs(records, f"python benchmarks/class_leakage.py {' '.join(records)}"),
        _MEANING,
        *([result_page.SQUEEZENET] if result_page.in_squeezenet(records) else []),
        *parts,
    )


def page(records: Mapping[str, RunRecord], page_name: str) -> Iterator[str]:
    """The parts of the page: of each run, by its folder, its defences, attacks and evaluation models."""
    for folder, record in records.items():
        for group in groups(record):
            count = len(group.seeds)
            networks = f"{count} network{'s' if count > 1 else ''} each"
            settings = f"preset {record.grid['preset']}, precision {record.grid['precision'] or 'float32'}"
            settings += ", ANN from a file" if record.weights else ""
            yield f"## {markdown(group.title)}: {networks}, {settings}"
            yield from _defenses(record, group)
            yield from _attacks(record, group)
            names = class_names(record, group.dataset)
            yield from result_page.first_pictures(
                list(_drawn(group)), Path(folder), f"{page_name}-{group.model}", names
            )
            known = any(cell.votes and cell.votes.known for cell in record.cells)
            of_these = " of the attacked classes" if known else ""
            yield f"Evaluation models, on test images{of_these} that no attack is compared with:"
            yield _models([judge for judge in record.judges if judge.dataset == group.dataset])


def _drawn(group: Group) -> Iterator[tuple[str, CellRecord]]:
    """Of each defence the attacks that show most, and their first cell with pictures."""
    for label in group.evaluated:
        shown = [(value.value, attack) for attack in group.attacks if (value := value_of(group.index(label, attack)))]
        most = [attack for _, attack in sorted(shown, key=lambda one: -one[0])[:SHOWN]]
        for attack in sorted(most, key=group.attacks.index):
            cells = [cell for cell in group.experiments[label, attack].cells if cell.pictures]
            yield from ((f"`{attack}`", cell) for cell in cells[:1])


def _models(judges: Sequence[JudgeInfo]) -> str:
    heading = ["model", "right on real images", "with blur and noise", "accepted, where it may reject"]
    rows = []
    for judge in judges:
        parts = [f"{one.images}: {_shown(one.share)}" for one in judge.open_set]
        rows.append([f"`{judge.name}`", _shown(judge.accuracy), _shown(judge.corrupted), "; ".join(parts) or "–"])
    return result_page.table(heading, rows)


def _defenses(record: RunRecord, group: Group) -> Iterator[str]:
    """Accuracy, verdict and named classes of each defence."""
    declared = {metric.name: metric for metric in record.metrics}
    names = class_names(record, group.dataset)
    heading = ["defence", "T", "accuracy", "the ANN's", "verdict", "index", "by", "classes named", "p"]
    rows = []
    for card in cards(group, record):
        cells = [cell for experiment in [group.experiments[card.defense, ""]] for cell in experiment.cells]
        steps = ", ".join(dict.fromkeys(str(cell.timesteps or "–") for cell in cells))
        rows.append([f"`{card.defense}`", steps, *_shares(cells, declared), card.chip, *_leak(group, card, names)])
    yield result_page.table(heading, rows)
    remarks: dict[str, list[str]] = {}
    for label, verdict in group.verdicts.items():
        for note in notes_of(verdict, names):
            remarks.setdefault(note, []).append(f"`{label}`")
    for note, labels in remarks.items():
        yield f"{', '.join(labels)}: {markdown(note)}."
    sharing = [f"`{label}`" for label in group.verdicts if group.plugin(label) in SHARING]
    if len(sharing) > 1:
        yield (
            f"{', '.join(sharing)} start from one ANN a seed: what is named on several of them is one finding, not "
            f"{len(sharing)}."
        )


def _leak(group: Group, card: Card, names: dict[int, str]) -> list[str]:
    verdict = group.verdicts[card.defense]
    named = [names.get(target, f"class {target}") for target in verdict.named]
    lacking = "" if named else needed_to_name(verdict)
    listed = f"{len(named)} of {len(verdict.classes)}{': ' if named else ''}{', '.join(named)}"
    if lacking:
        listed = f"needs {lacking}"
    return [card.index or "–", f"`{card.attack}`" if card.attack else "–", markdown(listed), markdown(card.p)]


def _shares(cells: Sequence[CellRecord], declared: Declarations) -> list[str]:
    """Means over networks with their intervals."""
    found = seed_group(list(cells), declared)
    estimates = [found.estimate(name) if found else None for name in SHARES]
    return [_estimate(one.value, one.low, one.high) if one else "–" for one in estimates]


def _estimate(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if low != low else f"{value:.3f} [{max(0, low):.3f}, {min(1, high):.3f}]"


def _attacks(record: RunRecord, group: Group) -> Iterator[str]:
    """The index of every attack on every network, then the equal error rates of verification."""
    if table := index_table(group, group.headline):
        answers = "have to name a class" if group.headline == FORCED else "may also answer that an image shows none"
        yield f"Leakage index by attack; the evaluation models {answers}:"
        heading = ["", *(f"`{attack}`" for attack in table.columns)]
        yield result_page.table(heading, [[f"`{row.label}`", *map(_cell, row.cells)] for row in table.rows])
    yield "Seconds of an attack on a network, mean over all of these:"
    yield result_page.table([f"`{attack}`" for attack in group.attacks], [[_seconds(group, a) for a in group.attacks]])
    names = [VerificationError.name, *(m.name for m in record.metrics if m.name.startswith(FdSqueezeNet.name))]
    for name in names:
        yield from _means(record, group, name)


def _seconds(group: Group, attack: str) -> str:
    """By the clock: on shared cores more than the attack takes."""
    taken = [
        value.value
        for label, of in group.experiments
        if label and of == attack and (reading := group.reading(label, attack, "seconds"))
        for _, value in reading.values
    ]
    return f"{sum(taken) / len(taken):.0f}" if taken else "–"


def _means(record: RunRecord, group: Group, name: str) -> Iterator[str]:
    """A metric of every attack on every network, mean over networks, beside that of real images and of noise."""
    declared = {metric.name: metric for metric in record.metrics}

    def mean(defense: str, attack: str) -> str:
        experiment = group.experiments.get((defense, attack))
        found = seed_group(list(experiment.cells), declared) if experiment else None
        estimate = found.estimate(name) if found else None
        return f"{estimate.value:.2f}" if estimate else "–"

    labels = list(dict.fromkeys(label for label, attack in group.experiments if label and attack))
    rows = [[f"`{label}`", *(mean(label, attack) for attack in group.attacks)] for label in labels]
    ends = f"of real images {mean('', REAL)}, of noise {mean('', NOISE)}"
    yield f"{markdown(declared[name].title)}, mean over networks; {ends}:"
    yield result_page.table(["", *(f"`{attack}`" for attack in group.attacks)], rows)


def _cell(cell: GridCell) -> str:
    return markdown(cell.text)


def _shown(value: Value) -> str:
    return f"{number('share', value)} {bounds('share', value)}"


if __name__ == "__main__":
    main()
