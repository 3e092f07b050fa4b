"""Writes docs/results/privacy-DATASET.md: the paper's Table 1 with both leaks measured, for every defence.

leakbench run --suite privacy --dataset digits --preset quick --seeds 3 --out runs/privacy-digits
python benchmarks/privacy_table.py runs/privacy-digits
"""

from __future__ import annotations

from collections.abc import Iterable

import result_page

from leakbench.records import RunRecord
from leakbench.reports.suite import suite
from leakbench.reports.summary import groups
from leakbench.reports.tables import paper_table

_MEANING = (
    "The paper's Table 1 ticks which methods address data leakage (they read no private image) and class leakage. Its "
    "ticks stand beside what was measured: of classes by `auto-v2` and its variants, of members by `auto_mia-v2`. An "
    "index is 0 where an attack finds no more than on networks that know nothing, and 1 where it finds all; intervals "
    "are of 95 %. *Inconclusive* claims nothing: what a verdict takes is in [how to read the "
    "report](../read-the-report.md) and [data leakage](../data-leakage.md)."
)


def main() -> None:
    dataset, records = result_page.read_runs(__doc__)
    result_page.keep(records)
    result_page.write(
        f"privacy-{dataset}.md",
        f"Both leaks of every defence: {dataset}",
        "The paper's Table 1, with data leakage and class leakage measured.",
        result_page.of_runs(records, f"python benchmarks/privacy_table.py {' '.join(records)}"),
        _MEANING,
        *page(records.values()),
    )


def page(records: Iterable[RunRecord]) -> list[str]:
    """The table of each data set and model."""
    parts = []
    for record in records:
        for group in groups(record):
            laid_out = suite(record, group, ())
            for title, heading, rows in map(paper_table, laid_out.tables if laid_out else ()):
                networks = f"{len(group.seeds)} network{'s' if len(group.seeds) > 1 else ''} each"
                parts += [f"## {group.title}: {title}", f"Of {networks}.", result_page.table(heading, rows)]
    return parts


if __name__ == "__main__":
    main()
