"""Writes docs/results/false-positives.md: how often networks that know nothing are said to leak.

leakbench run -d han2020 -a ATTACKS --preset quick --seeds 3 --null-networks 100 --out runs/nulls
python benchmarks/false_positives.py runs/nulls

ATTACKS may be those of ``auto`` too, as benchmarks/auto_on_every_null.py:AutoV2Everywhere and its neighbours. The run
attacks 100 networks that are untrained or were trained on shuffled labels. Each of them is judged here as a defended
network would be: alone, and in studies of four with the others as controls.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import result_page

from leakbench.leakage.inversion.class_evidence import ClassEvidence, class_evidence
from leakbench.metrics.estimate import proportion
from leakbench.records import CellRecord
from leakbench.reports.files import read_record

STUDY = 4
DEALS = 10
"""ways in which the networks are dealt into studies"""
Networks = Mapping[str, Sequence[CellRecord]]


def nulls(cells: Sequence[CellRecord]) -> Networks:
    """Network that knows nothing -> its cells."""
    networks: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in cells:
        if cell.defense and cell.of and cell.control and cell.votes is not None:
            networks[cell.defense].append(cell)
    return networks


def judged(networks: Networks, names: Sequence[str], attacks: Sequence[str], open_set: bool) -> ClassEvidence:
    """Some of the networks as one defence's, with all others as controls."""
    own = [
        cell.model_copy(update={"seed": seed, "of": ""}) for seed, name in enumerate(names) for cell in networks[name]
    ]
    others = [cell for name, cells in networks.items() if name not in names for cell in cells]
    evidence = class_evidence(own, others, attacks, open_set)
    assert evidence is not None
    return evidence


def studies(names: Sequence[str], deals: int) -> Iterator[list[str]]:
    rng = np.random.default_rng(0)
    for _ in range(deals):
        order = rng.permutation(len(names))
        yield from ([names[at] for at in order[start : start + STUDY]] for start in range(0, len(order), STUDY))


def share(hits: Sequence[bool], independent: bool = True) -> list[str]:
    """Counts, and the share with its interval where the studies share no network."""
    one = proportion(sum(hits), len(hits))
    interval = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" if independent else f"{one.value:.3f}"
    return [f"{sum(hits)} of {len(hits)}", interval]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    record = read_record(folder)
    networks = nulls(record.cells)
    names = list(networks)
    attacks = sorted({cell.attack for cells in networks.values() for cell in cells})
    parts = []
    for title, open_set in (('With "none of these"', True), ("Where the answer has to be a class", False)):
        alone = [judged(networks, [name], attacks, open_set).leaks for name in names]
        dealt = [judged(networks, study, attacks, open_set) for study in studies(names, DEALS) if len(study) == STUDY]
        first = dealt[: len(names) // STUDY]
        rows = [
            ["one network leaks (p ≤ .01)", *share([one.leaks for one in alone])],
            ["four networks leak (p ≤ .01)", *share([one.leaks.leaks for one in first])],
            [f"the same, dealt in {DEALS} ways", *share([one.leaks.leaks for one in dealt], independent=False)],
            ["some class of four networks is named", *share([bool(one.named) for one in first])],
            [f"the same, dealt in {DEALS} ways", *share([bool(one.named) for one in dealt], independent=False)],
        ]
        rates = [one.false_acceptance.value for one in dealt if one.false_acceptance is not None]
        seen = f"{np.mean(rates):.3f}"
        text = f"Of all pairs of classes, the images made for the one are accepted as the other in {seen}."
        parts += [f"## {title}", result_page.table(["what", "how often", "share, 95 % interval"], rows), text]
    named = ", ".join(name.removesuffix("-everywhere") for name in attacks)
    others = f"{len(names) - STUDY} or {len(names) - 1}"
    about = (
        f"{len(names)} networks of {record.datasets[0].name} that are untrained or were trained on shuffled labels, "
        f"each attacked by {named} at preset {record.grid['preset']}. Nothing can leak; the procedure's level is .01. "
        f"All networks that are not in a study are its controls: {others}, where runs have 6 at the preset quick and "
        "20 at standard. p does not depend on their number, what is named does."
    )
    made = result_page.of_run(record, "runs/nulls", "python benchmarks/false_positives.py runs/nulls")
    result_page.write("false-positives.md", "How often networks that know nothing leak", about, made, *parts)


if __name__ == "__main__":
    main()
