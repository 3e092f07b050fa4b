"""Writes docs/results/false-security-DATASET.md: what verdicts say of defences that only look safe.

leakbench run --config benchmarks/false_security.toml --out runs/false-security-digits --no-isolate
python benchmarks/false_security.py runs/false-security-digits

The defences are those of tests/false_security; each says there which verdict is right. Some register
models of their own, which the process that measures has to have: so plugins are not isolated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import result_page

from leakbench import registry
from leakbench.leakage.kind import index_line
from leakbench.records import RunRecord, Verdict
from leakbench.reports.files import read_record

PLUGINS = Path(__file__).parents[1] / "tests" / "false_security"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    classes = {plugin.name: plugin for plugin in _plugins()}
    record = read_record(given.run)
    rows = [
        [
            f"`{verdict.defense}`",
            registry.first_sentence(classes[name].__doc__),
            _drop(record, verdict.defense),
            _said(verdict),
            classes[name].right_verdict,
            "yes" if verdict.outcome in classes[name].right_verdict else "**no**",
        ]
        for verdict in record.verdicts
        if (name := _name(record, verdict.defense)) in classes
    ]
    dataset, seeds = record.datasets[0].name, len({cell.seed for cell in record.cells})
    alone = "With one network nothing can, and no class is named: only a leak can be seen. " if seeds == 1 else ""
    heading = ["defence", "what it is", "accuracy below the ANN's", "verdict", "right would be", "is it"]
    about = (
        "Defences that were written to look safe without being so, and two published ones that are meant to hold, "
        f"under the same attacks, on {dataset} with {seeds} "
        f'network{"s" * (seeds > 1)} each, preset {record.grid["preset"]}. None of them may read "resists". {alone}The '
        "clean half of `separable_trap` is the ANN itself, from which the attacks get an index of "
        f"{_of_the_ann(record)}."
    )
    folder = f"runs/{given.run.name}"
    made = result_page.of_run(record, folder, f"python benchmarks/false_security.py {folder}")
    title = f"Defences that only look safe: {dataset}"
    result_page.write(f"false-security-{dataset}.md", title, about, made, result_page.table(heading, rows))


def _plugins() -> list[type]:
    sys.path.insert(0, str(PLUGINS.parent))
    files = [path for path in PLUGINS.glob("*.py") if not path.stem.startswith(("_", "test_"))]
    found = []
    for file in sorted(files):
        module = __import__(f"false_security.{file.stem}", fromlist=["*"])
        found += [one for one in vars(module).values() if isinstance(one, type) and hasattr(one, "right_verdict")]
    return found


def _name(record: RunRecord, label: str) -> str:
    return next((cell.defense_name for cell in record.cells if cell.defense == label), label)


def _of_the_ann(record: RunRecord) -> str:
    """The highest index of attacks on the unprotected ANN, and by which."""
    known = {
        row.attack: row.indices[0]
        for row in record.rows
        if row.defense == "ann" and row.indices and row.indices[0].value
    }
    best = max(known, key=lambda attack: known[attack].value or 0.0)
    return f"{index_line(known[best])} by {best}"


def _drop(record: RunRecord, label: str) -> str:
    drops = []
    for cell in record.cells:
        values = {value.metric: value.value for value in cell.values}
        if cell.defense == label and not cell.attack and "accuracy" in values:
            drops.append(values["ann_accuracy"] - values["accuracy"])
    return f"{sum(drops) / len(drops):.3f}" if drops else "–"


def _said(verdict: Verdict) -> str:
    if verdict.outcome == "leaks":
        index = index_line(verdict.index) if verdict.index else "–"
        named = f"{len(verdict.named)} of {len(verdict.classes)} classes named, index {index} by {verdict.attack}"
        why = "decoys suspected" if "decoys" in verdict.reason else "attacks without signal"
        return f"leaks: {named}{'' if verdict.comparable else f'; how much is open: {why}'}"
    decoys = any("decoys suspected" in one for one in verdict.missing)
    return f"{verdict.outcome}{': decoys suspected' if decoys else ''}"


if __name__ == "__main__":
    main()
