"""Loading plugins: into this process, or, where they are isolated, into processes of their own.

A third party's attacks and defences are isolated inside :func:`isolating`: what is loaded then is a class in their
place, and their code never runs here. Metrics, models and data sets are loaded into this process: they are trusted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakbench import registry
from leakbench.errors import LeakBenchError, PluginError, UsageError, described, printable
from leakbench.modules import module_file
from leakbench.paths import checked_path, default_cache, remove_all
from leakbench.runtime.fence import unless_built_in
from leakbench.runtime.isolation.confinement import Grant, what_is_lacking
from leakbench.runtime.isolation.grants import grants, package_of
from leakbench.runtime.isolation.said import Description
from leakbench.runtime.isolation.server import Opening, PluginServer
from leakbench.runtime.isolation.stand_in import asked, stand_in

BUILT_IN, ISOLATED, NOT_ISOLATED = "built-in", "isolated", "not isolated"
"""how a plugin runs, as records say it; the last one with the reason behind it"""
_ISOLATED_KINDS: tuple[registry.Kind, ...] = ("attack", "defense")


@dataclass(frozen=True)
class Isolation:
    """How a run treats plugins that are not built in: the same in all of its processes."""

    reason: str = "not asked for"
    """why they are not isolated; empty where they are"""
    hidden: tuple[str, ...] = ()
    """files and folders that no plugin may read, wherever they lie"""
    scratch: str = ""
    """a folder for their temporary files"""


class _Host:
    """The plugins of this process that run in others."""

    def __init__(self, isolation: Isolation) -> None:
        self.isolation = isolation
        self.server = PluginServer(self._grants, isolation.scratch)
        self._openings: dict[tuple[registry.Kind, str], Opening | None] = {}
        self._classes: dict[tuple[registry.Kind, str, str], type[Any]] = {}
        self._granted: dict[tuple[Opening, str], list[Grant]] = {}

    def _grants(self, opening: Opening, scratch: str) -> list[Grant]:
        if (opening, scratch) not in self._granted:  # what comes to lie there later is not given
            granted = grants(opening.files, opening.searched, self.isolation.hidden, [scratch])
            self._granted[opening, scratch] = granted
        return self._granted[opening, scratch]

    def opening(self, kind: registry.Kind, target: str) -> Opening | None:
        """What a process begins with the plugin from; None where no other process can have it."""
        if (kind, target) not in self._openings:
            self._openings[kind, target] = _opening(kind, target)
        return self._openings[kind, target]

    def load(self, kind: registry.Kind, target: str, opening: Opening) -> type[Any]:
        """The class in the plugin's place."""
        key = kind, target, source(kind, target).digest
        if key not in self._classes:
            facts = asked(self.server, opening, Description, {"type": "describe"})
            found = stand_in(self.server, opening, facts)
            if problem := registry.incomplete(found):  # the plugin's process may have had its say on that
                raise PluginError(f"the process of {opening.label}: {problem}")
            self._classes[key] = found
        return self._classes[key]


_host: _Host | None = None


@contextmanager
def isolating(isolation: Isolation) -> Iterator[None]:
    """Plugins that are loaded inside are treated in this way; their processes end with it."""
    global _host
    before, here = _host, _Host(isolation)
    _host = here
    try:
        yield
    finally:
        here.server.close()
        _host = before


@contextmanager
def isolation_of(wanted: bool, hidden: Sequence[str | Path | None], device: str) -> Iterator[Isolation]:
    """Of a run, with a folder for temporary files as long as it lasts.

    ``hidden`` are the files and folders of data, store and results. Where the system can't isolate, the reason says so.
    """
    if not wanted:
        reason = "--no-isolate"
    else:
        # their kernels are compiled by processes of their own, which isolated plugins can't start
        reason = "on a GPU plugins can't be yet" if device.startswith("cuda") else what_is_lacking()
    if reason:
        yield Isolation(reason)
        return
    scratch = tempfile.mkdtemp(prefix="leakbench-plugins-")
    named = (os.path.expanduser(path) for path in (default_cache(), *hidden) if path)  # noqa: PTH111 - raises nothing
    closed = dict.fromkeys(str(Path(path).absolute()) for path in named)
    try:
        yield Isolation("", tuple(closed), scratch)
    finally:
        remove_all(scratch)


def isolation_here() -> Isolation:
    """How this process treats plugins now."""
    return _host.isolation if _host is not None else Isolation()


def how_it_runs(kind: registry.Kind, target: str) -> str:
    """``built-in``, ``isolated``, or ``not isolated: reason``."""
    if target.startswith(registry.MODULE):
        return f"{NOT_ISOLATED}: a module that is audited is run where it is asked"
    if registry.is_built_in(kind, target):
        return BUILT_IN
    if kind not in _ISOLATED_KINDS:
        return f"{NOT_ISOLATED}: metrics, models and data sets are trusted"
    reason = isolation_here().reason
    if not reason and _elsewhere(kind, target) is None:
        reason = "its class is in no file"
    return f"{NOT_ISOLATED}: {reason}" if reason else ISOLATED


def isolation_inputs(kind: registry.Kind, target: str) -> dict[str, bool]:
    """What keys say of it: nothing that was made without isolation is taken for what was made with it."""
    return {"isolated": True} if how_it_runs(kind, target) == ISOLATED else {}


def load_plugin(kind: registry.Kind, target: str) -> Any:
    """The plugin, its module imported inside the fence (:func:`leakbench.registry.load`), or a class in its place."""
    opening = _elsewhere(kind, target)
    if opening is not None and _host is not None:
        return _host.load(kind, target, opening)
    with unless_built_in(kind, target):
        return registry.load(kind, target)


def made_plugin(kind: registry.Kind, target: str, params: Mapping[str, Any], code: str = "") -> Any:
    """The plugin with these parameters. What its own code raises is a PluginError, wrong parameters a UsageError.

    With ``code``, the sha256 of a third party's source that keys hold, PluginError where the source is another now.
    """
    plugin = load_plugin(kind, target)
    if code and registry.everywhere(kind, target) and source(kind, target).digest != code:
        raise PluginError(f"{registry.label(target)} was edited while the run was under way: start it again")
    try:
        with unless_built_in(kind, target):
            return plugin(**params)
    except LeakBenchError:
        raise
    except Exception as error:
        raise PluginError(f"{target} can't be made: {described(error)}") from error


def source(kind: registry.Kind, target: str) -> registry.Source:
    """As :func:`leakbench.registry.source`. PluginError where that would import what can't be isolated."""
    _elsewhere(kind, target)
    return registry.source(kind, target)


def _elsewhere(kind: registry.Kind, target: str) -> Opening | None:
    """What another process begins with the plugin from; None where it runs in this one."""
    if _host is None or _host.isolation.reason or kind not in _ISOLATED_KINDS or registry.is_built_in(kind, target):
        return None
    return _host.opening(kind, target)


def _opening(kind: registry.Kind, target: str) -> Opening | None:
    if ".py:" in target:
        text, _, attribute = target.rpartition(":")
        path = checked_path(Path(text), "plugin file").absolute()
        if not path.is_file():
            raise UsageError(f"no such plugin file {text!r}: give path/to/file.py:attribute")
        return Opening(kind, f"{path}:{attribute}", "", (path,))
    entry = registry.entries(kind).get(target)
    if entry is None or not registry.everywhere(kind, target):
        return None  # loading it says what is wrong
    module = entry.target.partition(":")[0]
    if module_file(module) is None:
        # whoever hides where the code lies would run it where the data is
        raise PluginError(
            f"the {kind} {target!r} can't be isolated: its module {printable(module)!r} is in no file that Python "
            "finds; --no-isolate runs it beside the data"
        )
    files = tuple(package_of(module))
    return Opening(kind, target, entry.target, files, entry.origin, tuple(file.parent for file in files))
