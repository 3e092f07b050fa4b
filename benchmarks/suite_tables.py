"""Writes docs/results/SUITE-DATASET.md: the tables of a suite, as its report has them.

leakbench run --suite privacy --dataset digits --preset quick --seeds 3 --out runs/privacy-digits
python benchmarks/suite_tables.py runs/privacy-digits
leakbench run --suite paper --dataset digits --preset quick --seeds 3 --out runs/paper-digits
python benchmarks/suite_tables.py runs/paper-digits
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import result_page
from data_leakage import one_ann

from leakbench.leakage.controls import UNTRAINED
from leakbench.leakage.kind import index_line
from leakbench.records import CellRecord, RunRecord
from leakbench.reports.curves import Curve, curves
from leakbench.reports.paper import CONVERTED, DISTILLED, method_of
from leakbench.reports.suite import PAPER, PRIVACY, SCENARIOS, suite
from leakbench.reports.summary import Group, class_names, groups, members_of
from leakbench.reports.tables import paper_table

_ABOUT = {
    PRIVACY: (
        "Both leaks of every defence",
        "The paper's Table 1, with data leakage and class leakage measured.",
        "The paper's Table 1 ticks which methods address data leakage (they read no private image) and class leakage. "
        "Its ticks stand beside what was measured: of classes by `auto-v2` and its variants, of members by "
        "{members}, which asks who was in the ANN's training; who was among the images that the conversion read is "
        "asked by `threshold_membership`, on [another page](data-leakage-digits.md). An index of classes is 0 "
        "where an attack finds no more than on networks that know nothing, and 1 where it finds all; of members it is "
        "2 AUC - 1, also of a network without any. Intervals are of 95 %. "
        "*Inconclusive* claims nothing: what a verdict takes is in [how to read the report](../read-the-report.md) and "
        "[data leakage](../data-leakage.md).",
    ),
    PAPER: (
        "The paper's tables",
        "What `--suite paper` measures, laid out as the paper's Tables 1 to 5 and Figures 5 and 6.",
        "The paper's own numbers have columns of their own, where it has the data set, in Table 4 where FID was "
        "measured. Intervals are of 95 %, over networks where there are several. What is computed otherwise than in "
        "the paper is in [the method](../method.md).",
    ),
}


def main() -> None:
    dataset, records = result_page.read_runs(__doc__)
    (name,) = {str(record.grid.get("suite")) for record in records.values()}
    title, about, meaning = _ABOUT[name]
    asked = {cell.attack for record in records.values() for cell in record.cells if cell.attack.startswith("auto_mia-")}
    meaning = meaning.replace("{members}", " and ".join(f"`{attack}`" for attack in sorted(asked)))
    result_page.keep(records)
    page_name = f"{name}-{dataset}"
    parts = list(page(records, page_name, result_page.pictures(page_name)))
    result_page.remove_unused(page_name, parts)
    result_page.write(
        f"{page_name}.md",
        f"{title}: {dataset}",
        about,
        result_page.of_runs(records, f"python benchmarks/suite_tables.py {' '.join(records)}"),
        meaning,
        *([result_page.SQUEEZENET] if result_page.in_squeezenet(records) else []),
        *parts,
    )


def page(records: Mapping[str, RunRecord], page_name: str, picture: Callable[[Curve], str]) -> Iterator[str]:
    """The tables of each data set and model with what they say of themselves, then the figures of the paper.

    ``records`` by the folder of the run; ``picture`` draws a curve and gives the Markdown that shows it.
    """
    for folder, record in records.items():
        for group in groups(record):
            drawn = {curve.id: curve for curve in curves(group)}
            if (laid_out := suite(record, group, drawn.values())) is None:
                continue
            networks = f"{len(group.seeds)} network{'s' if len(group.seeds) > 1 else ''} each"
            if laid_out.departures:
                yield f"Not as in the paper: {'; '.join(laid_out.departures)}."
            for one in laid_out.tables:
                title, heading, rows = paper_table(one)
                yield f"## {group.title}: {title}"
                yield f"Of {networks}. {one.note}"
                yield result_page.table(heading, rows)
            members = members_of(record).get((group.dataset, group.model))
            yield from _on_members(members) if members else ()
            for figure, curve in (("5a", laid_out.over_timesteps), ("5b", laid_out.over_samples)):
                if curve:
                    yield f"## {group.title}: Figure {figure}"
                    yield picture(drawn[curve])
            if record.grid["suite"] == PAPER and (shown := list(_figure_6(group, Path(folder), record, page_name))):
                yield f"## {group.title}: Figure 6"
                yield from shown


def _figure_6(group: Group, run: Path, record: RunRecord, page_name: str) -> Iterator[str]:
    """What both attacks of the paper draw, before encryption training and after it, and what evaluation models see. The
    real images, the paper's first row, are no part of this project."""
    rows = [
        (f"{scenario}, {attack}, {'without' if method == CONVERTED else 'with'} encryption", cell)
        for scenario, attack in SCENARIOS
        for method in (CONVERTED, DISTILLED)
        if (cell := _drawn(group, method, attack))
    ]
    yield from result_page.first_pictures(rows, run, f"{page_name}-{group.model}-6", class_names(record, group.dataset))


def _drawn(group: Group, method: str, attack: str) -> CellRecord | None:
    """The first cell with pictures of that attack on that row of the paper."""
    cells = (cell for label in group.evaluated for cell in _cells(group, label, attack))
    return next((cell for cell in cells if cell.pictures and method_of(cell) == method), None)


def _cells(group: Group, label: str, attack: str) -> tuple[CellRecord, ...]:
    experiment = group.experiments.get((label, attack))
    return experiment.cells if experiment else ()


def _on_members(members: Group) -> Iterator[str]:
    """What the untrained network reads, which has no members, then what is said of conversions of one ANN."""
    for (label, attack), row in members.rows.items():
        if members.plugin(label) == UNTRAINED:
            index = index_line(row.indices[0])
            yield f"Of members of an untrained network, which has none, `{attack}` has index {index}."
    yield from one_ann(members, list(members.verdicts))


if __name__ == "__main__":
    main()
