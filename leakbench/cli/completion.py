"""Completion in the shell (``leakbench --install-completion``): the names that options take, and what can follow."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from leakbench import registry
from leakbench.errors import LeakBenchError, PluginError, UnknownName, UsageError

_SPLIT = re.compile(r"[=:]+")
_TYPABLE = re.compile(r"[^\s'\"\\$`;&|<>()*?!#~]+")

Complete = Callable[[str], list[str]]


# --- names -------------------------------------------------------------------------------------------------------


def attack_names() -> list[str]:
    """All registered attacks."""
    return ["all", *registry.names("attack")]


def defense_names() -> list[str]:
    """All registered defences."""
    return registry.names("defense")


def metric_choices() -> list[str]:
    """The metrics that a grid may add: those that are not built in, which are measured anyway."""
    return [name for name in registry.names("metric") if not registry.is_built_in("metric", name)]


SETTABLE: tuple[registry.Kind, ...] = ("defense", "attack", "metric")
"""kinds of plugins that have parameters"""
EVERY_KIND: tuple[registry.Kind, ...] = (*SETTABLE, *(kind for kind in get_args(registry.Kind) if kind not in SETTABLE))


def protocol_names() -> list[str]:
    """Those that ``leakbench run --protocol`` takes."""
    from leakbench.bench.protocols import PROTOCOLS

    return list(PROTOCOLS)


def preset_names() -> list[str]:
    """Those that ``--preset`` takes."""
    from leakbench.cells import Preset  # its fields are checked by what needs torch

    return list(get_args(Preset))


def plugin_names(kinds: Iterable[registry.Kind] = EVERY_KIND) -> list[str]:
    """All that :func:`kind_named` knows."""
    return [name for kind in kinds for name in registry.names(kind)]


def kind_named(name: str) -> registry.Kind:
    """The kind of the plugin of that name, the first where several have one; UnknownName with the nearest name."""
    for kind in EVERY_KIND:
        if name in registry.names(kind):
            return kind
    if name.endswith(".py"):
        raise UsageError(f"{name!r}: what of this file? Give {name}:NAME, its class or function")
    if Path(name).is_dir():
        raise UsageError(f"{name!r} is a folder: give FILE.py:NAME, a file in it and its class or function")
    raise UnknownName("plugin", name, plugin_names())


def kind_of(name: str, load: Callable[[registry.Kind, str], Any] = registry.load) -> registry.Kind:
    """The kind of a plugin by name or of ``path/to/file.py:attribute``, which ``load`` loads.

    UsageError, as UnknownName, where there is none; PluginError where it can't be loaded or is no plugin.
    """
    if ".py:" not in name:
        return kind_named(name)
    for kind in EVERY_KIND:
        try:
            load(kind, name)
        except PluginError as error:
            if f"is no {kind}" not in str(error):
                raise
        else:
            return kind
    right = "derive from leakbench.contracts.Attack or Defense, or from a metric, or build a model or a data set"
    raise PluginError(f"{name!r} is no plugin: it must {right}")


def dataset_choices() -> list[str]:
    """All data sets by name, and their halves."""
    names = registry.names("dataset")
    return [*names, *(f"{name}:half" for name in names), "folder:"]


def public_choices() -> list[str]:
    """All sources of public images by name."""
    from leakbench.data.public import HALF, PHOTOS

    return [PHOTOS, HALF, *dataset_choices()]


def model_choices() -> list[str]:
    """All models by name."""
    return registry.names("model")


# --- what can follow what was typed ------------------------------------------------------------------------------


def starting(names: Callable[[], Iterable[str]]) -> Complete:
    """Completion: the names that start with what was typed, of those that a shell takes as they are."""

    def complete(incomplete: str) -> list[str]:
        return [
            name for name in names() if name.startswith(incomplete) and name.isprintable() and _TYPABLE.fullmatch(name)
        ]

    return complete


def several(names: Callable[[], Iterable[str]]) -> Complete:
    """Completion of names separated by commas: the last one, of those that are not there yet."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        left = starting(lambda: [name for name in names() if "," not in name and name not in before.split(",")])
        return [f"{before}{comma}{name}" for name in left(last)]

    return complete


def of_run(names: Callable[[Any], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Completion by what the run holds that the command was given: ``names`` of its record."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        from leakbench.bench.bundle import opened
        from leakbench.reports.files import read_either

        # where options follow it, an argument is not yet taken up
        source = context.params.get("source") or next(iter(context.args), "")
        if not source:
            return []
        with contextlib.suppress(LeakBenchError, OSError), opened(Path(source)) as folder:
            record = read_either(folder)
            return starting(lambda: dict.fromkeys(names(record)))(incomplete)
        return []

    return complete


def setting(incomplete: str) -> list[str]:
    """Completion of ``plugin.param=value``: the plugins, the parameters, the choices or else the default.

    Where one answer is left that goes on, what follows it is an answer, too: shells put a space behind the last one.
    """
    plugin, dot, rest = incomplete.partition(".")
    if not dot:
        plugins = [*defense_names(), *registry.names("attack"), *metric_choices()]
        answers = starting(lambda: [f"{name}." for name in plugins])(incomplete)
        return [*answers, *setting(answers[0])] if len(answers) == 1 else answers
    from leakbench.contracts.plugin import settable

    try:
        fields = settable(registry.load(kind_named(plugin), plugin))
    except (LeakBenchError, AttributeError):  # a model has no parameters
        return []
    param, equals, values = rest.partition("=")
    if not equals:
        answers = starting(lambda: [f"{plugin}.{name}=" for name in fields])(incomplete)
        return [*answers, *setting(answers[0])] if len(answers) == 1 else answers
    if param not in fields:
        return []
    choices = choices_of(fields[param].annotation) or ([] if values else default_of(fields[param]))
    return [f"{plugin}.{param}={value}" for value in several(lambda: choices)(values)]


def choices_of(annotation: Any) -> list[str]:
    """What a parameter of few values takes, as it is typed: of a Literal, an Enum or a bool; nothing for others."""
    if annotation is bool:
        return ["true", "false"]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(one.value) for one in annotation]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return list(dict.fromkeys(choice for part in get_args(annotation) for choice in choices_of(part)))


def default_of(field: Any) -> list[str]:
    """A parameter's default as it is typed, if it has one."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return [] if default is None else [str(default)]


# --- bash --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def words_of_bash() -> Iterator[None]:
    """Where bash asks for completions: the words as they were typed.

    bash has words end at = and : (COMP_WORDBREAKS) and replaces the last piece alone: the pieces are put together for
    typer, and what is there already is taken off its answers.
    """
    if os.environ.get("_LEAKBENCH_COMPLETE") != "complete_bash":
        yield
        return
    typed = os.environ["COMP_WORDS"]
    pieces = typed.split("\n" if "\n" in typed else " ")[: int(os.environ["COMP_CWORD"]) + 1]
    words: list[str] = []
    joins = False
    for piece in pieces:
        breaks = _SPLIT.fullmatch(piece) is not None
        if words and (joins or breaks):
            words[-1] += piece
        else:
            words.append(piece)
        joins = breaks
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    there = words[-1][: len(words[-1]) - len("" if joins else pieces[-1])]
    answers = io.StringIO()
    try:
        with contextlib.redirect_stdout(answers):
            yield
    finally:
        for answer in answers.getvalue().splitlines():
            typer.echo(answer.removeprefix(there))
