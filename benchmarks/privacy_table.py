"""Writes docs/results/privacy-DATASET.md: the paper's Table 1 with both leaks measured, for every defence.

leakbench run --suite privacy --dataset digits --preset quick --seeds 3 --out runs/privacy-digits
python benchmarks/privacy_table.py runs/privacy-digits
"""

from __future__ import annotations

import result_page

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
    parts = []
    for record in records.values():
        for group in groups(record):
            laid_out = suite(record, group, ())
            for title, heading, rows in [paper_table(table) for table in (laid_out.tables if laid_out else ())]:
                seeds = f"{len(group.seeds)} network{'s' if len(group.seeds) > 1 else ''} each"
                parts += [f"## {group.title}: {title}", seeds, result_page.table(heading, rows)]
    result_page.write(
        f"privacy-{dataset}.md",
        f"Both leaks of every defence: {dataset}",
        "The paper's Table 1, with data leakage and class leakage measured.",
        result_page.of_runs(records, f"python benchmarks/privacy_table.py {' '.join(records)}"),
        _MEANING,
        *parts,
    )


if __name__ == "__main__":
    main()
