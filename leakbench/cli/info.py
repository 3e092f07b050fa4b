"""``leakbench info``: one plugin with its parameters."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leakbench import registry
from leakbench.cli.options import attack_names, defense_names, starting
from leakbench.cli.terminal import echo
from leakbench.errors import UnknownName, printable


def _names() -> list[str]:
    return [*defense_names(), *(name for name in attack_names() if name != "all")]


def info(
    name: Annotated[
        str,
        typer.Argument(help="A defence or attack, or path/to/file.py:Class.", autocompletion=starting(_names)),
    ],
) -> None:
    """Show what a defence or attack does, where it is from, and its parameters for --set."""
    kind: registry.Kind
    if ".py:" in name:
        plugin, kind = _from_file(name)
    else:
        if name not in _names():
            raise UnknownName("defence or attack", name, _names())
        kind = "defense" if name in registry.entries("defense") else "attack"
        plugin = registry.load(kind, name)
    typer.secho(printable(plugin.name), bold=True, nl=False)
    echo(f"  {kind}, version {plugin.version}")
    typer.echo()
    for line in (plugin.__doc__ or "").strip().expandtabs().split("\n"):
        echo(line)
    if plugin.cites:
        typer.echo()
        echo(f"source: {plugin.cites}")
    if kind == "attack":
        echo(f"needs: {plugin.needs.name}{' and public images (--public)' if plugin.uses_public else ''}")
    typer.echo()
    echo(f"parameters (--set {plugin.name}.NAME=VALUE; several values, comma-separated, make a grid):")
    rows = [
        [printable(text) for text in (field_name, _default(field), _bounds(field), field.description or "")]
        for field_name, field in plugin.Params.model_fields.items()
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    for row in rows:
        echo("  " + "  ".join(f"{row[i]:<{widths[i]}}" for i in range(3)) + f"  {row[3]}")
    if not rows:
        typer.echo("  none")
    for preset, values in plugin.presets.items():
        echo(f"preset {preset}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


def _from_file(name: str) -> tuple[Any, registry.Kind]:
    from leakbench.errors import PluginError

    try:
        return registry.load("attack", name), "attack"
    except PluginError as error:
        if "is no attack" not in str(error):
            raise
        return registry.load("defense", name), "defense"


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return f"{str(default).lower() if isinstance(default, bool | None) else default}"


def _bounds(field: Any) -> str:
    signs = {"Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}
    parts = []
    for item in field.metadata:
        sign = signs.get(type(item).__name__)
        if sign:
            parts.append(f"{sign} {getattr(item, type(item).__name__.lower())}")
    return ", ".join(parts)
