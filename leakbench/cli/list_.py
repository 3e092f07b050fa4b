"""``leakbench list``: what there is to run."""

from __future__ import annotations

from typing import Annotated

import typer

from leakbench import registry
from leakbench.cli.terminal import echo
from leakbench.errors import UnknownName, printable

KINDS = ("defenses", "attacks", "datasets", "models", "presets")


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"One of: {', '.join(KINDS)}.", autocompletion=lambda: list(KINDS), show_default=False),
    ] = None,
) -> None:
    """List defences, attacks, data sets, models and presets. For one of them in full: leakbench info NAME."""
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    for one in KINDS if kind is None else (kind,):
        rows = [(printable(name), text) for name, text in _rows(one)]
        echo(one, bold=True)
        width = max((len(name) for name, _ in rows), default=0)
        for name, text in rows:
            echo(f"  {name:<{width}}  {text}".rstrip())


def _rows(kind: str) -> list[tuple[str, str]]:
    if kind in ("defenses", "attacks"):
        rows = []
        for name, entry in registry.entries("defense" if kind == "defenses" else "attack").items():
            summary = registry.summary(entry)
            public = " and public images" if summary.uses_public else ""
            needs = f" (needs {summary.needs}{public})" if summary.needs else ""
            origin = "" if entry.origin == "built-in" else f" [{entry.origin}]"
            rows.append((name, f"{summary.line}{needs}{origin}"))
        return rows
    if kind == "datasets":
        from leakbench.data import availability

        rows = [(a.name, a.detail if a.available else f"not here: {a.detail}") for a in availability()]
        half = ("NAME:half", "every second class of one of these; the other classes are public images for attacks")
        return [*rows, half, ("folder:PATH", "your own images, one subfolder a class")]
    if kind == "models":
        from leakbench.models.family import FAMILY

        return [(name, member.summary) for name, member in FAMILY.items()]
    return [
        ("quick", "minutes become seconds: small sizes, wide intervals"),
        ("standard", "the default: sized for two cores"),
        ("paper", "the paper's sizes: VGG16, T = 150, 5000 synthetic images; wants a GPU"),
    ]
