"""``leakbench compare``: defences of one or several runs, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakbench.cli.options import FailIfOption, JsonOption, checked
from leakbench.cli.terminal import echo

if TYPE_CHECKING:
    from leakbench.bench.comparison import Comparison
    from leakbench.bench.conditions import Condition, Failure


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs (each holds results.json), or their bundles (.zip).", show_default=False),
    ],
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Compare runs that should not be compared (other data, other images of each class, other evaluation "
            "models), and mark every line concerned.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the comparison. Default: runs/compare-NAMES.",
            show_default=False,
            callback=checked,
        ),
    ] = None,
    fail_if: FailIfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the defences of one or several runs: leakage, accuracy, energy and cost, with differences.

    Defences built from the same trained networks are compared with paired tests over seeds and classes, corrected for
    the number of pairs. Runs may be of different days and machines: differences in settings, versions and environments
    are listed.

    `leakbench compare runs/monday runs/tuesday`

    `leakbench compare runs/mine --fail-if 'classes.weights.high > 0.2' --fail-if 'accuracy_drop > 0.02'`

    Exit status: 0, or 2 for wrong input and for runs that can't be compared, or 3 when a --fail-if holds.
    """
    from rich.console import Console

    from leakbench.bench import conditions
    from leakbench.cli.comparison_text import print_comparison, print_failures
    from leakbench.session.compare import compare as compare_folders

    gate = [conditions.parse(text) for text in fail_if or ()]
    with Console(stderr=True, emoji=False).status("comparing"):  # a hundred defences take most of a minute
        compared, page = compare_folders(runs, anyway, out)
    failures = _failures(gate, compared)
    if as_json:
        typer.echo(_json(compared, page, failures))
    else:
        print_comparison(compared)
        echo(f"comparison: {page}")
    print_failures(failures)
    if failures:
        raise typer.Exit(3)


def _failures(gate: list[Condition], compared: Comparison) -> list[Failure]:
    """The conditions of --fail-if that hold, and those that a run with missing cells leaves open."""
    from leakbench.bench import conditions

    failures = conditions.failures(gate, compared.defenses)
    if broken := ", ".join(run.name for run in compared.runs if not run.complete):
        why = f"can't be checked on all of it: {broken} is not complete"
        failures += [conditions.Failure(one.text, "", why) for one in gate]
    return failures


def _json(compared: Comparison, page: Path, failures: list[Failure]) -> str:
    shown = {"label", "runs", "dataset", "model", "outcome", "attack", "index", "rank", "unranked"}
    summary = {
        "comparison": str(page.parent),
        "page": str(page),
        "defenses": [one.model_dump(include=shown) for one in compared.defenses],
        "pairs": [pair.model_dump() for pair in compared.pairs],
        "failures": [failure.line for failure in failures],
    }
    return json.dumps(summary)
