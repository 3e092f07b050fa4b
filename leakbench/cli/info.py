"""``leakbench info``: one plugin, with its parameters where it has some."""

from __future__ import annotations

import inspect
import json
import shlex
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakbench import registry
from leakbench.cli.completion import SETTABLE, choices_of, kind_of, plugin_names, preset_names, protocol_names, starting
from leakbench.cli.options import JsonOption
from leakbench.cli.terminal import echo, echo_rows, wrapped
from leakbench.errors import UnknownName, UsageError, printable

if TYPE_CHECKING:
    from leakbench.metrics.metric import Declaration

_SIGNS = {"Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A defence, attack, metric, model, data set, preset or protocol, or path/to/file.py:attribute.",
            metavar="NAME",
            autocompletion=starting(lambda: [*plugin_names(), *preset_names(), *protocol_names()]),
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what a plugin does, where it is from, and the parameters for --set of a defence, an attack or a metric; of a
    preset what it sets, of a protocol what a run must be to follow it.

    With --json an object with name, kind, version, summary, doc, cites, needs, uses_public, uses_references,
    uses_population and uses_synthetic (null but for attacks), run_with (what always runs beside it), members (the
    attacks of an ensemble), parameters (each with name, type, default, required, bounds such as {"ge": 1}, and
    description) and presets (the parameters that differ there); of a metric also title, meaning, unit, leaks, per,
    counts, needs_same_n, scale and leakage. Of a model or a data set name, kind, summary, doc, origin, and of a
    built-in data set available and detail. Of a preset or a protocol name, kind and settings.
    """
    from leakbench.contracts.plugin import settable

    if name not in plugin_names():
        if name in preset_names():
            _show_preset(name, as_json)
            return
        if name in protocol_names():
            _show_protocol(name, as_json)
            return
        if name.startswith("folder:"):
            read = f"leakbench run -d ann -a none --dataset {shlex.quote(name)} --dry-run"
            raise UsageError(f"info knows nothing of folders: {read} says what is wrong with one, if anything is")
        if ".py" not in name:
            raise UnknownName("name", name, [*plugin_names(), *preset_names(), *protocol_names()])
    kind = kind_of(name)
    plugin = registry.load(kind, name)
    if kind not in SETTABLE:
        _show_other(_facts_of_other(kind, name, plugin), as_json)
        return
    if as_json:
        typer.echo(json.dumps(_facts(kind, plugin), indent=1))
        return
    declared = plugin.declaration() if kind == "metric" else None
    typer.secho(printable(plugin.name), bold=True, nl=False)
    echo(f"  {kind}, version {plugin.version}")
    typer.echo()
    for line in inspect.cleandoc(plugin.__doc__ or "").split("\n"):
        echo(line)
    if declared:
        typer.echo()
        _show_declaration(declared)
    if plugin.cites:
        typer.echo()
        _paragraph(f"source: {plugin.cites}")
    if kind == "attack":
        also = [what for name, what in registry.USES.items() if getattr(plugin, name, False)]
        echo(f"needs: {' and '.join([plugin.needs.name, *also])}")
    if beside := _run_with(kind, plugin):
        echo(f"run with: {', '.join(beside)}")
    for number, member in enumerate(getattr(plugin, "members", ())):
        settings = ", ".join(f"{key}={value}" for key, value in member.params.model_dump(mode="json").items())
        _paragraph(f"{'runs' if number == 0 else 'then'}: {member.name} ({settings})")
    fields = settable(plugin)
    if kind == "metric" and not fields:
        return
    typer.echo()
    several = "" if kind == "metric" else "; several values, comma-separated, make a grid"
    echo(f"parameters (--set {plugin.name}.NAME=VALUE{several}):")
    echo_rows([(name, _default(field), _bounds(field), field.description or "") for name, field in fields.items()])
    if not fields:
        typer.echo("  none")
    for preset, values in plugin.presets.items():
        _paragraph(f"preset {preset}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


def _show_preset(name: str, as_json: bool) -> None:
    """What a preset sets outside the plugins."""
    from leakbench.bench.grid import SIZES

    sizes = SIZES[name]
    if as_json:
        typer.echo(json.dumps({"name": name, "kind": "preset", "settings": sizes.model_dump()}, indent=1))
        return
    typer.secho(name, bold=True, nl=False)
    echo("  preset")
    typer.echo()
    shown = sizes.model_dump() | {"timesteps": " ".join(f"{depth}:{steps}" for depth, steps in sizes.timesteps)}
    fields = type(sizes).model_fields
    echo_rows([(key, _shown(shown[key]), field.description or "") for key, field in fields.items()])
    typer.echo()
    _paragraph("What it sets of a defence, an attack or a metric: leakbench info NAME.")


def _show_protocol(name: str, as_json: bool) -> None:
    """What a run must be to follow a protocol."""
    from leakbench.bench.protocols import protocol_named

    protocol = protocol_named(name)
    settings = {key: value for key, value in asdict(protocol).items() if key not in ("name", "summary")}
    if as_json:
        facts = {"name": name, "kind": "protocol", "summary": protocol.summary, "settings": settings}
        typer.echo(json.dumps(facts, indent=1))
        return
    typer.secho(name, bold=True, nl=False)
    echo("  protocol")
    typer.echo()
    echo(protocol.summary)
    typer.echo()
    versions = ("attacks", "stages")
    echo_rows([(key.replace("_", "-"), str(value)) for key, value in settings.items() if key not in versions])
    for key in versions:
        _paragraph(f"{key}: " + ", ".join(f"{one} (version {number})" for one, number in settings[key].items()))
    typer.echo()
    _paragraph("Other attacks may be run beside these. All other options of leakbench run must have their defaults.")


def _show_declaration(metric: Declaration) -> None:
    """How a metric's values are shown and read, a line each."""
    directions = {"more": "higher means that more leaks", "less": "lower means that more leaks"}
    _paragraph(f"title: {metric.title}")
    echo(f"unit: {metric.unit}{', from 0 to 1' if metric.unit == 'share' else ''}")
    echo(f"direction: {directions.get(metric.leaks, 'none, it measures no leakage')}")
    echo(f"values: {'one for each class, and their mean' if metric.per == 'class' else 'a single one'}")
    if metric.needs_same_n:
        echo("compare at the same number of images only")
    if metric.leakage:
        echo(f"kind of leak: {metric.leakage}")


def _run_with(kind: registry.Kind, plugin: Any) -> list[str]:
    return [name for name in registry.together(kind, plugin.name) if name != plugin.name]


def _facts(kind: registry.Kind, plugin: Any) -> dict[str, Any]:
    """What --json prints."""
    from leakbench.contracts.plugin import settable

    doc = inspect.cleandoc(plugin.__doc__ or "")
    return {
        "name": plugin.name,
        "kind": kind,
        "version": plugin.version,
        "summary": doc.partition("\n")[0],
        "doc": doc,
        "cites": plugin.cites,
        **(asdict(plugin.declaration()) if kind == "metric" else {}),
        "needs": plugin.needs.name if kind == "attack" else None,
        **{name: bool(getattr(plugin, name, False)) if kind == "attack" else None for name in registry.USES},
        "run_with": _run_with(kind, plugin),
        "members": [
            {"name": member.name, "version": member.version, "parameters": member.params.model_dump(mode="json")}
            for member in getattr(plugin, "members", ())
        ],
        "parameters": [
            {
                "name": name,
                "type": _type(field.annotation),
                "default": None if field.is_required() else _plain(field.get_default(call_default_factory=True)),
                "required": field.is_required(),
                "bounds": {sign.lower(): _plain(bound) for sign, bound in _limits(field)},
                "description": field.description or "",
            }
            for name, field in settable(plugin).items()
        ],
        "presets": {
            preset: {key: _plain(value) for key, value in values.items()} for preset, values in plugin.presets.items()
        },
    }


def _paragraph(text: str) -> None:
    for line in wrapped(printable(text), indent="  "):
        typer.echo(line)


def _facts_of_other(kind: registry.Kind, name: str, plugin: Any) -> dict[str, Any]:
    """Of a model or a data set."""
    entry = registry.entries(kind).get(name)
    # a built-in data set is no function, and has its text beside it
    summary = registry.summary(entry).line if entry else registry.first_sentence(plugin.__doc__)
    documented = isinstance(plugin, type) or inspect.isfunction(plugin)
    facts: dict[str, Any] = {
        "name": registry.label(name),
        "kind": kind,
        "summary": summary,
        "doc": (inspect.getdoc(plugin) or "") if documented else summary,
        "origin": entry.origin if entry else name,
    }
    if kind == "dataset" and entry is not None and entry.origin == "built-in":
        from leakbench.data import default_data_folder

        availability = plugin.availability(default_data_folder())
        facts |= {"available": availability.available, "detail": availability.detail}
    return facts


def _show_other(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    typer.secho(printable(facts["name"]), bold=True, nl=False)
    echo(f"  {facts['kind']}, {facts['origin']}")
    typer.echo()
    for line in facts["doc"].expandtabs().split("\n"):
        echo(line)
    if "detail" in facts:
        typer.echo()
        _paragraph(f"{'here' if facts['available'] else 'not here'}: {facts['detail']}")


def _plain(value: Any) -> Any:
    """The value where JSON has it, else its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _type(annotation: Any) -> str:
    """As an author writes it: int, float | None, Literal['sgd', 'adam']; of an enumeration what it takes."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"Literal{[one.value for one in annotation]}"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    return _shown(field.get_default(call_default_factory=True))


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def _limits(field: Any) -> list[tuple[str, Any]]:
    """The bounds of a parameter by pydantic's names: ("Ge", 1)."""
    names = [(type(item).__name__, item) for item in field.metadata]
    return [(name, getattr(item, name.lower())) for name, item in names if name in _SIGNS]


def _bounds(field: Any) -> str:
    """Limits of a number, or what else there is to choose from."""
    limits = [f"{_SIGNS[name]} {bound}" for name, bound in _limits(field)]
    choices = [] if field.annotation is bool else choices_of(field.annotation)
    return ", ".join([*limits, *([" | ".join(choices)] if choices else [])])
