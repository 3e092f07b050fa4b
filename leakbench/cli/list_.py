"""``leakbench list``: what there is to run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from leakbench import registry
from leakbench.cli.completion import starting
from leakbench.cli.options import JsonOption
from leakbench.cli.terminal import echo, echo_rows
from leakbench.errors import UnknownName

KINDS = ("defenses", "attacks", "metrics", "datasets", "models", "presets", "protocols")
_PLUGINS: dict[str, registry.Kind] = {
    "defenses": "defense", "attacks": "attack", "metrics": "metric", "models": "model",
}  # fmt: skip

Row = dict[str, Any]
"""name, summary, and what else there is to say of this kind of thing"""


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"One of: {', '.join(KINDS)}.",
            metavar="KIND",
            autocompletion=starting(lambda: KINDS),
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List defences, attacks, metrics, data sets, models, presets and protocols. Details of one: leakbench info NAME.

    With --json an object of lists by these kinds. Each item has name and summary; plugins also origin, attacks needs,
    uses_public, uses_references, uses_population and uses_synthetic, auto version_of (the version it stands for) and
    run_with, and data sets available (null where it depends).
    """
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    rows_by_kind = {one: _rows(one) for one in (KINDS if kind is None else (kind,))}
    if as_json:
        typer.echo(json.dumps(rows_by_kind, indent=1))
        return
    for one, rows in rows_by_kind.items():
        if not rows:
            continue
        echo(one, bold=True)
        echo_rows([(row["name"], _line(row)) for row in rows])


def _line(row: Row) -> str:
    """A row in one line for people."""
    if row.get("available") is not None:
        return f"{'here' if row['available'] else 'not here'}: {row['summary']}"
    remarks = [f"now {row['version_of']}"] if "version_of" in row else []
    if "run_with" in row:
        remarks.append(f"with {', '.join(row['run_with'])}")
    if row.get("needs"):
        also = [what for key, what in registry.USES.items() if row[key]]
        remarks.append("needs " + " and ".join([row["needs"], *also]))
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    origin = f" [{row['origin']}]" if row.get("origin", "built-in") != "built-in" else ""
    return f"{row['summary']}{remark}{origin}"


def _rows(kind: str) -> list[Row]:
    if kind == "datasets":
        return _datasets()
    if kind == "protocols":
        from leakbench.bench.protocols import PROTOCOLS

        return [{"name": one.name, "summary": one.summary} for one in PROTOCOLS.values()]
    if kind != "presets":
        return _plugins(_PLUGINS[kind])
    return [
        {"name": "quick", "summary": "small sizes, wide intervals: for a first look"},
        {"name": "standard", "summary": "the default: sized for two cores"},
        {
            "name": "paper-cpu",
            "summary": "the paper's network and T (VGG16, T = 150), the rest sized for days on two cores",
        },
        {"name": "paper", "summary": "the paper's sizes: VGG16, T = 150, 5000 synthetic images; wants a GPU"},
    ]


def _datasets() -> list[Row]:
    from leakbench.data import availability

    here = {place.name: {"summary": place.detail, "available": place.available} for place in availability()}
    flips = "with :flips behind, mirrored ones keep their class"
    half = "every second class of one of these; the other classes are public images for attacks"
    return [
        *({**row, "available": None, **here.get(row["name"], {})} for row in _plugins("dataset")),
        {"name": "NAME:half", "summary": half, "available": None},
        {"name": "folder:PATH", "summary": f"your own images, one subfolder a class; {flips}", "available": None},
        {
            "name": "FILE.npz",
            "summary": f"your own arrays, x_train, y_train, x_test, y_test; {flips}",
            "available": None,
        },
    ]


def _plugins(kind: registry.Kind) -> list[Row]:
    """The plugins of a kind; a name that stands for a newest version comes before the versions."""
    entries = registry.entries(kind)
    rows = []
    for name in [*(name for name in registry.names(kind) if name not in entries), *entries]:
        entry = entries[registry.newest(kind, name)]
        summary = registry.summary(entry)
        row: Row = {"name": name, "summary": summary.line, "origin": entry.origin}
        if kind == "attack":
            row |= {name: getattr(summary, name) for name in ("needs", *registry.USES)}
        if entry.name != name:
            row["version_of"] = entry.name
        if together := registry.together(kind, name)[1:]:
            row["run_with"] = list(together)
        rows.append(row)
    return rows
