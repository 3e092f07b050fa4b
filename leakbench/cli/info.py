"""``leakbench info``: one plugin with its parameters."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from leakbench import registry
from leakbench.cli.completion import plugin_named, plugin_names, starting
from leakbench.cli.options import JsonOption
from leakbench.cli.terminal import echo, echo_rows, wrapped
from leakbench.errors import printable

_SIGNS = {"Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A defence or attack, or path/to/file.py:Class.", metavar="NAME", autocompletion=starting(plugin_names)
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what a defence or attack does, where it is from, and its parameters for --set.

    With --json an object with name, kind, version, summary, doc, cites, needs and uses_public (null for defences),
    members (the attacks of an ensemble), parameters (each with name, type, default, required, bounds such as
    {"ge": 1}, and description) and presets (the parameters that differ there).
    """
    kind, plugin = _from_file(name) if ".py:" in name else plugin_named(name)
    if as_json:
        typer.echo(json.dumps(_facts(kind, plugin), indent=1))
        return
    typer.secho(printable(plugin.name), bold=True, nl=False)
    echo(f"  {kind}, version {plugin.version}")
    typer.echo()
    for line in (plugin.__doc__ or "").strip().expandtabs().split("\n"):
        echo(line)
    if plugin.cites:
        typer.echo()
        _paragraph(f"source: {plugin.cites}")
    if kind == "attack":
        echo(f"needs: {plugin.needs.name}{' and public images (--public)' if plugin.uses_public else ''}")
    for number, member in enumerate(getattr(plugin, "members", ())):
        settings = ", ".join(f"{key}={value}" for key, value in member.params.model_dump(mode="json").items())
        _paragraph(f"{'runs' if number == 0 else 'then'}: {member.name} ({settings})")
    typer.echo()
    echo(f"parameters (--set {plugin.name}.NAME=VALUE; several values, comma-separated, make a grid):")
    fields = plugin.Params.model_fields
    echo_rows([(name, _default(field), _bounds(field), field.description or "") for name, field in fields.items()])
    if not fields:
        typer.echo("  none")
    for preset, values in plugin.presets.items():
        _paragraph(f"preset {preset}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


def _facts(kind: registry.Kind, plugin: Any) -> dict[str, Any]:
    """What --json prints."""
    doc = (plugin.__doc__ or "").strip()
    return {
        "name": plugin.name,
        "kind": kind,
        "version": plugin.version,
        "summary": doc.partition("\n")[0],
        "doc": doc,
        "cites": plugin.cites,
        "needs": plugin.needs.name if kind == "attack" else None,
        "uses_public": bool(plugin.uses_public) if kind == "attack" else None,
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
            for name, field in plugin.Params.model_fields.items()
        ],
        "presets": {
            preset: {key: _plain(value) for key, value in values.items()} for preset, values in plugin.presets.items()
        },
    }


def _paragraph(text: str) -> None:
    for line in wrapped(printable(text), indent="  "):
        typer.echo(line)


def _from_file(name: str) -> tuple[registry.Kind, Any]:
    from leakbench.errors import PluginError

    try:
        return "attack", registry.load("attack", name)
    except PluginError as error:
        if "is no attack" not in str(error):
            raise
        return "defense", registry.load("defense", name)


def _plain(value: Any) -> Any:
    """The value where JSON has it, else its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _type(annotation: Any) -> str:
    """As an author writes it: int, float | None, Literal['sgd', 'adam']."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return f"{str(default).lower() if isinstance(default, bool | None) else default}"


def _limits(field: Any) -> list[tuple[str, Any]]:
    """The bounds of a parameter by pydantic's names: ("Ge", 1)."""
    names = [(type(item).__name__, item) for item in field.metadata]
    return [(name, getattr(item, name.lower())) for name, item in names if name in _SIGNS]


def _bounds(field: Any) -> str:
    return ", ".join(f"{_SIGNS[name]} {bound}" for name, bound in _limits(field))
