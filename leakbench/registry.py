"""Name -> plugin. Built-ins are lazy "module:attribute" strings: listing names imports no plugin, and no torch.

Attacks, defences and metrics are classes; a model or a data set is a function that builds one. Third parties plug in by
an entry point (groups ``leakbench.attacks``, ``leakbench.models``, ...), by ``path/to/file.py:attribute`` on the
command line, or by :func:`register` from Python.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from types import FunctionType
from typing import Any, get_args

from leakbench.built_ins import BUILT_IN, FAMILIES
from leakbench.built_ins import Kind as Kind
from leakbench.code_digest import code_digest
from leakbench.errors import PluginError, UnknownName, UsageError, described
from leakbench.modules import module_file, source_digest
from leakbench.paths import checked_path

_BASES: dict[Kind, str] = {
    "attack": "leakbench.contracts.Attack",
    "defense": "leakbench.contracts.Defense",
    "metric": "leakbench.metrics.metric.Metric",
}
"""what the classes of a kind derive from"""
_ARGUMENTS: dict[Kind, tuple[str, ...]] = {"model": ("image_shape", "classes", "generator"), "dataset": ("folder",)}
"""what the functions of a kind are called with"""

_NEWEST: dict[tuple[Kind, str], str] = {
    ("attack", "auto"): "auto-v2",
    ("attack", "auto_mia"): "auto_mia-v3",
}
"""names that stand for the newest version of what keeps its versions apart"""
_TOGETHER: dict[tuple[Kind, str], tuple[str, ...]] = {
    ("attack", "auto-v2"): ("auto-v2", "repaired", "pruned", "distilled")
}
"""what is run together: each hands over its own images, and the worst case counts"""
MODULE = "module: "
"""how a model begins that is somebody's module, see :mod:`leakbench.models.asked`: " of " and the function follow"""
Target = Callable[..., Any] | str
"""a class, a function, or the text "module:attribute" that says where one is"""
_registered: dict[Kind, dict[str, Target]] = {}
_origins: dict[tuple[Kind, str], str] = {}
"""where registered names are from, of those that another process registered as what is installed there"""
_files: dict[tuple[str, str], Any] = {}
"""(label, sha256 of the file) -> what was loaded from a file in this process"""
_codes: dict[int, tuple[Any, str]] = {}
"""id of a plugin -> itself, and the digest of its code"""
_paths: dict[tuple[str, str], Path] = {}
"""(label, sha256 of the file) -> the file"""


@dataclass(frozen=True)
class Entry:
    """One registered plugin: its name, where its class or function is, and where the name comes from."""

    kind: Kind
    name: str
    target: str
    origin: str


def register(kind: Kind, name: str, target: Target, origin: str = "registered") -> None:
    """Make a plugin known under ``name``: a class or a function, or a lazy ``"module:attribute"`` string."""
    if kind not in get_args(Kind):
        raise UsageError(f"unknown kind of plugin {kind!r}: {', '.join(map(repr, get_args(Kind)))} are known")
    if is_built_in(kind, name):
        raise UsageError(f"the {kind} {name!r} is built in: register yours under another name")
    if kind in _ARGUMENTS and set(name) & set(",:+@"):
        raise UsageError(f"a {kind}'s name must be without , : + and @, and is {name!r}: choose another")
    if not (isinstance(target, type | str) or inspect.isfunction(target)):
        raise UsageError(f"the {kind} {name!r} must be a class, a function or a text like 'module:attribute'")
    _registered.setdefault(kind, {})[name] = target
    _origins[kind, name] = origin


def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of a kind by name, none of them imported. Built-ins win over third parties."""
    by_name = {name: Entry(kind, name, target, "built-in") for name, target in BUILT_IN[kind].items()}
    for name, target in _registered.get(kind, {}).items():
        by_name.setdefault(name, Entry(kind, name, _text(target), _origins.get((kind, name), "registered")))
    for point in entry_points(group=f"leakbench.{kind}s"):
        origin = point.dist.name if point.dist else "entry point"
        by_name.setdefault(point.name, Entry(kind, point.name, point.value, origin))
    return by_name


def _text(target: Target) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


def is_built_in(kind: Kind, name: str) -> bool:
    """Whether the name is of a plugin that comes with LeakBench; of a file it never is."""
    return newest(kind, name) in BUILT_IN[kind] or _family(kind, name) is not None


def _family(kind: Kind, name: str) -> Entry | None:
    """What makes the plugin that such a name describes."""
    made = (target for (of, begin), target in FAMILIES.items() if of == kind and name.startswith(begin))
    return next((Entry(kind, name, target, "built-in") for target in made), None)


def built_in(kind: Kind) -> tuple[str, ...]:
    """The names that come with LeakBench."""
    return tuple(BUILT_IN[kind])


def _entry(kind: Kind, name: str) -> Entry | None:
    # built-ins win, and entries() looks through all installed packages, which takes a while
    target = BUILT_IN[kind].get(name)
    return Entry(kind, name, target, "built-in") if target else entries(kind).get(name)


def newest(kind: Kind, name: str) -> str:
    """The name that ``name`` stands for now: itself, but for ensembles whose versions are kept apart."""
    return _NEWEST.get((kind, name), name)


def together(kind: Kind, name: str) -> tuple[str, ...]:
    """What ``name`` asks for: itself, or its newest version, and what is always run with that."""
    return _TOGETHER.get((kind, newest(kind, name)), (newest(kind, name),))


def names(kind: Kind) -> list[str]:
    """What may be asked for by name."""
    return [*entries(kind), *(name for newest_kind, name in _NEWEST if newest_kind == kind)]


def label(name: str) -> str:
    """A plugin's name without the folders of its file: what reports, keys and stored networks show."""
    path, of_file, attribute = in_file(name).rpartition(".py:")
    return f"{before_file(name)}{Path(path).name}{of_file}{attribute}"


def in_file(name: str) -> str:
    """Of what is in a file: path/to/file.py:attribute."""
    return name.removeprefix(before_file(name))


def before_file(name: str) -> str:
    """What is said of it before that; empty, unless it is a module."""
    said, of, _ = name.partition("} of ")
    return f"{said}{of}" if name.startswith(MODULE) else ""


def load(kind: Kind, name: str) -> Any:
    """The plugin: a class, or a function that builds a model or a data set.

    ``name`` is a registered name or ``path/to/file.py:attribute``. Raises UnknownName with the nearest name,
    PluginError when the plugin can't be imported or is no plugin of this kind.
    """
    name = newest(kind, name)
    family = _family(kind, name)
    if family is not None:
        plugin = _from_target(family)(name)
    elif ".py:" in name:
        plugin = _asked(name, from_file(in_file(name)))
    else:
        given = _registered.get(kind, {}).get(name)
        if given is not None and not isinstance(given, str):
            plugin = given
        else:
            known = _entry(kind, name)
            if known is None:
                file, colon, attribute = name.partition(":")
                if file.endswith(".py") or (colon and kind in _BASES):
                    what = "function" if kind in _ARGUMENTS else "Class"
                    raise UsageError(f"unknown {kind} {name!r}: give path/to/file.py:{attribute or what}")
                raise UnknownName(kind, name, names(kind))
            plugin = _from_target(known)
    if kind in _ARGUMENTS:
        if not _takes(plugin, _ARGUMENTS[kind]) or getattr(plugin, "kind", kind) != kind:
            raise PluginError(f"{name!r} is no {kind}: it must be a function of ({', '.join(_ARGUMENTS[kind])})")
        return plugin
    # by the class's own word: this module stays below the contracts and imports no torch
    if not (isinstance(plugin, type) and getattr(plugin, "kind", None) == kind):
        raise PluginError(f"{name!r} is no {kind}: it must derive from {_BASES[kind]}")
    problem = incomplete(plugin)
    if problem:
        raise PluginError(f"the {kind} {name!r} is incomplete: {problem}")
    return plugin


def _asked(name: str, plugin: Any) -> Any:
    """What a file holds, as it is or as ``name`` says how to ask it."""
    if not before_file(name):
        return plugin
    return importlib.import_module("leakbench.models.asked").adapted(name, plugin)


def _takes(plugin: Any, arguments: tuple[str, ...]) -> bool:
    """Whether it can be called with so many arguments, as far as it says what it takes."""
    if not callable(plugin):
        return False
    try:
        inspect.signature(plugin).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # of what is written in C
        return True
    return True


def at_hand(kind: Kind, name: str, digest: str) -> Any:
    """The third party's plugin that something was stored with, by its :func:`label` and source; imports no file.

    A plugin from a file must have been loaded in this process, others are registered or installed. PluginError where
    there is none, or where its source is another now.
    """
    if ".py:" in name:
        file = in_file(name)
        if (file, digest) in _files:
            return _asked(name, _files[file, digest])
        other = any(file == known for known, _ in _files)
    else:
        plugin = load(kind, name)
        # what this process alone knows has no other source than this
        if not everywhere(kind, name) or source(kind, name).digest == digest:
            return plugin
        other = True
    if other:
        raise PluginError(f"the {kind} {name!r} was edited since something was made with it: rebuild it")
    raise PluginError(f"the {kind} {name!r} is not available: name its file or register it at the top of your plugin's")


@dataclass(frozen=True)
class Source:
    """Where a third party's plugin is from and what it consists of; both empty for what is built in."""

    origin: str = ""
    """file, registered, or the distribution with its version; no path: a file that is moved stays what it is"""
    digest: str = ""
    """sha256 of the file that holds the plugin, of what a module consists of
    (:func:`~leakbench.modules.source_digest`), or of the plugin's own code where there is no file"""


def source(kind: Kind, name: str) -> Source:
    """Of the plugin that :func:`load` gives for ``name``."""
    name = newest(kind, name)
    if is_built_in(kind, name):
        return Source()
    if ".py:" in name:
        return Source("file", hashlib.sha256(Path(in_file(name).rpartition(":")[0]).read_bytes()).hexdigest())
    entry = entries(kind).get(name) if everywhere(kind, name) else None
    file = module_file(entry.target.partition(":")[0]) if entry is not None else None
    if entry is not None and file is not None:  # nothing is imported, so that it may be isolated
        return Source(origin(kind, name), source_digest(entry.target, file))
    return Source(origin(kind, name), _digest_of(load(kind, name)))


def origin(kind: Kind, name: str) -> str:
    """Where a registered or installed plugin is from: registered, or its distribution with the version."""
    said = entries(kind)[name].origin
    with contextlib.suppress(PackageNotFoundError):  # registered, or an entry point of no distribution
        said = f"{said} {version(said)}"
    return said


def whereabouts(kind: Kind, name: str, digest: str) -> tuple[str, str]:
    """How another process loads what :func:`at_hand` gives here: a name for :func:`load`, and the target to
    :func:`register` it with; none for one of a file, whose name has an absolute path.

    PluginError as :func:`at_hand`, and where no other process can have it.
    """
    at_hand(kind, name, digest)
    if ".py:" in name:
        return f"{before_file(name)}{_paths[in_file(name), digest]}:{name.rpartition(':')[2]}", ""
    if not everywhere(kind, name):
        raise PluginError(f"the {kind} {name!r} is known to this process alone: put it into a file")
    return name, entries(kind)[name].target


def _digest_of(plugin: Any) -> str:
    """Of the module that holds a plugin, or sha256 of its code, where no file says what it is: in a notebook, in a
    script that runs; of both, where it was made inside of a function."""
    named = isinstance(plugin, type | FunctionType) and "<locals>" not in plugin.__qualname__
    file = getattr(sys.modules.get(plugin.__module__), "__file__", None)
    of_file = ""
    if file is not None and plugin.__module__ != "__main__" and Path(file).is_file():
        of_file = source_digest(plugin.__module__, Path(file))
        if named:
            return of_file
    return hashlib.sha256(f"{of_file} {_code_digest(plugin)}".encode()).hexdigest()


def _code_digest(plugin: Any) -> str:
    """Kept until :func:`look_again`: a run's own doing, as a list that grows, makes no other plugin of one."""
    kept = _codes.get(id(plugin))
    if kept is None:
        kept = _codes[id(plugin)] = plugin, code_digest(plugin)
    return kept[1]


def look_again() -> None:
    """A run begins: what plugins of this process's code refer to may have been changed since the last one."""
    _codes.clear()


def registrations() -> list[tuple[Kind, str, str]]:
    """What :func:`register` made known in this process, as lazy strings for another process.

    What no module can be asked for (a class of a notebook, of ``__main__``) is left out: only this process knows it.
    """
    registered: list[tuple[Kind, str, str]] = []
    for kind, plugins in _registered.items():
        for name, target in plugins.items():
            text = _text(target)
            if not text.startswith("__main__:") and "<locals>" not in text:
                registered.append((kind, name, text))
    return registered


def everywhere(kind: Kind, name: str) -> bool:
    """Whether other processes can load this plugin, too."""
    return name not in _registered.get(kind, {}) or any((kind, name) == known[:2] for known in registrations())


def incomplete(plugin: type[Any]) -> str:
    """What a plugin's class lacks and what would be right, one line; empty where nothing is."""
    name, version = getattr(plugin, "name", None), getattr(plugin, "version", None)
    if not (isinstance(name, str) and name and name.isprintable() and not set(name) & set("[]=,")):
        return f'its name must be a printable text without [ ] = and commas, as in name = "mine", and is {name!r}'
    if type(version) is not int:  # a bool is an int
        return f"its version must be a whole number, as in version = 1, and is {version!r}"
    missing = sorted(getattr(plugin, "__abstractmethods__", ()))
    if missing:
        return f"it must have the method {missing[0]}"
    presets = getattr(plugin, "presets", {})
    if not (isinstance(presets, Mapping) and all(isinstance(one, str) for one in presets)):
        return 'its presets must be parameters by the name of a preset, as in presets = {"quick": {"epochs": 1}}'
    cites = getattr(plugin, "cites", "")
    if not isinstance(cites, str):
        return f'what it cites must be a text, as in cites = "Doe 2020", and is {cites!r}'
    if plugin.kind == "attack" and not hasattr(getattr(plugin, "needs", None), "name"):
        return "it must say what it needs, as in needs = Access.SCORES"
    return ""


def _from_target(entry: Entry) -> Any:
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the {entry.kind} {entry.name!r} ({entry.origin}) can't be loaded from {entry.target!r}: "
            f"{described(error)}"
        ) from error


def from_file(target: str, anew: bool = False) -> Any:
    """The class or function ``path/to/file.py:attribute``, its file imported once, or ``anew``, as what it reads may
    have been written since. Errors as of :func:`load`.
    """
    path_text, _, attribute = target.rpartition(":")
    path = checked_path(Path(path_text), "plugin file").resolve()
    if not path.is_file():
        raise UsageError(f"no such plugin file {path_text!r}: give path/to/file.py:attribute")
    # The content is part of the name: an edited file is never served from an earlier import, and worker
    # processes that import it anew find the same module.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the plugin file {path_text!r} can't be read: {error.strerror}") from None
    digest = hashlib.sha256(str(path).encode() + content).hexdigest()[:12]
    module_name = f"leakbench_plugin_{path.stem}_{digest}"
    module = None if anew else sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            # what runs is what was hashed: the import system would take bytecode of a file that was edited since, where
            # second and size are the same
            exec(compile(content, path, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise PluginError(f"{path_text} can't be imported: {described(error)}") from error
    if not hasattr(module, attribute):
        own = {name: one for name, one in vars(module).items() if isinstance(one, type | FunctionType)}
        here = [name for name, one in own.items() if one.__module__ == module_name]
        has = f": it has {', '.join(here)}" if here else ""
        raise UsageError(f"{path_text} has no class or function {attribute!r}{has}")
    # of files of one name and content in several folders the one that was named last: what they read may differ
    known = label(target), hashlib.sha256(content).hexdigest()
    _paths[known], _files[known] = path, getattr(module, attribute)
    return _files[known]


@dataclass(frozen=True)
class Summary:
    """What a plugin says of itself, read from its source without importing it."""

    line: str
    needs: str = ""
    uses_public: bool = False
    uses_references: bool = False
    uses_population: bool = False
    uses_synthetic: bool = False


USES: Mapping[str, str] = {
    "uses_public": "public images",
    "uses_references": "reference networks",
    "uses_population": "images of the population",
    "uses_synthetic": "the images that the defence synthesised",
}
"""what an attack may take besides its access to the network, by how it says so; in the order of Summary"""


def summary(entry: Entry) -> Summary:
    """What the plugin does, in a sentence (and what it needs), by parsing its file: listing stays fast."""
    given = _registered.get(entry.kind, {}).get(entry.name)
    if given is not None and not isinstance(given, str):
        return Summary(
            first_sentence(given.__doc__),
            getattr(getattr(given, "needs", None), "name", ""),
            *(bool(getattr(given, name, False)) for name in USES),
        )
    module, _, attribute = entry.target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return Summary("(can't be found: its module is not installed)")
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception as error:  # a broken third-party package must not break the list
        return Summary(f"(can't be loaded: {described(error)})")
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            needs, *uses = (_assigned(node, name) for name in ("needs", *USES))
            return Summary(
                first_sentence(ast.get_docstring(node)),
                needs.attr if isinstance(needs, ast.Attribute) else "",
                *(isinstance(one, ast.Constant) and one.value is True for one in uses),
            )
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return Summary(first_sentence(ast.get_docstring(node)))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            # a text right behind it says what it is
            text = after.value if isinstance(after, ast.Expr) else None
            doc = text.value if isinstance(text, ast.Constant) else None
            return Summary(first_sentence(doc) if isinstance(doc, str) else "")
    return Summary(f"(can't be loaded: no class or function {attribute} in {module})")


def first_sentence(doc: str | None) -> str:
    """Of a docstring's first paragraph, on one line; empty without one."""
    paragraph = " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())
    end = re.search(r"(?<! al)[.!?](?= [A-Z])", paragraph)  # "et al." ends no sentence
    return paragraph[: end.end()] if end else paragraph


def _assigned(node: ast.ClassDef, name: str) -> ast.expr | None:
    """What a class's body says after ``name =``."""
    for statement in node.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and target.id == name:
                return statement.value
    return None
