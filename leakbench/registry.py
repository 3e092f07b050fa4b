"""Name -> plugin. Built-ins are lazy "module:Class" strings, so that listing names imports no plugin (and no torch).

Third parties plug in by an entry point (groups ``leakbench.attacks`` and ``leakbench.defenses``), by
``path/to/file.py:Class`` on the command line, or by :func:`register` from Python.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import marshal
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, Literal, get_args

from leakbench.errors import PluginError, UnknownName, UsageError
from leakbench.paths import checked_path

Kind = Literal["attack", "defense", "metric"]

_BUILT_IN: dict[Kind, dict[str, str]] = {
    "defense": {
        "ann": "leakbench.defenses.controls:Ann",
        "random": "leakbench.defenses.controls:Random",
        "shuffled": "leakbench.defenses.controls:Shuffled",
        "overfitted": "leakbench.defenses.controls:Overfitted",
        "diehl2015": "leakbench.defenses.normalization:Diehl2015",
        "rueckauer2017": "leakbench.defenses.normalization:Rueckauer2017",
        "sengupta2019": "leakbench.defenses.conversion:Sengupta2019",
        "han2020": "leakbench.defenses.conversion:Han2020",
        "han_roy2020": "leakbench.defenses.switch:HanRoy2020",
        "zambrano2019": "leakbench.defenses.adaptive:Zambrano2019",
        "deng_gu2021": "leakbench.defenses.finetuned:DengGu2021",
        "li2021": "leakbench.defenses.calibrated:Li2021",
        "bu2022": "leakbench.defenses.finetuned:Bu2022",
        "stbp": "leakbench.defenses.trained:Stbp",
        "tdbn": "leakbench.defenses.trained:TdBn",
        "lee2020": "leakbench.defenses.trained:Lee2020",
        "zskd": "leakbench.defenses.private_ann:Zskd",
        "knowledge_within": "leakbench.defenses.private_ann:KnowledgeWithin",
        "datafree": "leakbench.defenses.datafree:DataFree",
        "privatesnn": "leakbench.defenses.privatesnn:PrivateSNN",
    },
    "attack": {
        "reconversion": "leakbench.attacks.reconversion:Reconversion",
        "direct": "leakbench.attacks.direct:Direct",
        "inversion": "leakbench.attacks.inversion:Inversion",
        "analog_twin": "leakbench.attacks.analog_twin:AnalogTwin",
        "surrogate_zoo": "leakbench.attacks.surrogate_zoo:SurrogateZoo",
        "spsa": "leakbench.attacks.spsa:Spsa",
        "extraction": "leakbench.attacks.extraction:Extraction",
        "decrypt": "leakbench.attacks.decrypt:Decrypt",
        "generative_prior": "leakbench.attacks.generative_prior:GenerativePrior",
        "evolution": "leakbench.attacks.evolution:Evolution",
        "label_only": "leakbench.attacks.label_only:LabelOnly",
        "auto-v1": "leakbench.attacks.auto:AutoV1",
        "loss_threshold": "leakbench.attacks.loss_threshold:LossThreshold",
    },
    "metric": {
        "judge_accuracy": "leakbench.metrics.judged:JudgeAccuracy",
        "judge_top5": "leakbench.metrics.judged:JudgeTop5",
        "daa": "leakbench.metrics.daa:Daa",
        "p_value": "leakbench.metrics.permutation:PValue",
        "kes": "leakbench.metrics.kes:Kes",
        "knn_distance": "leakbench.metrics.neighbours:KnnDistance",
        "fid": "leakbench.metrics.frechet:Fid",
        "fd_bnconv": "leakbench.metrics.frechet:FdBnConv",
        "fd_inception": "leakbench.metrics.frechet:FdInception",
        "kid": "leakbench.metrics.kernel:Kid",
        "kd_bnconv": "leakbench.metrics.kernel:KdBnConv",
        "kd_inception": "leakbench.metrics.kernel:KdInception",
        "precision": "leakbench.metrics.prdc:Precision",
        "recall": "leakbench.metrics.prdc:Recall",
        "density": "leakbench.metrics.prdc:Density",
        "coverage": "leakbench.metrics.prdc:Coverage",
        "uap_fooling": "leakbench.metrics.uap:UapFooling",
        "uap_fooling_random": "leakbench.metrics.uap:UapFoolingRandom",
        "uap_fooling_noise": "leakbench.metrics.uap:UapFoolingNoise",
        "uap_fooling_real": "leakbench.metrics.uap:UapFoolingReal",
        "victim_accuracy": "leakbench.metrics.accuracy:VictimAccuracy",
        "victim_confidence": "leakbench.metrics.accuracy:VictimConfidence",
        "accuracy": "leakbench.metrics.accuracy:Accuracy",
        "ann_accuracy": "leakbench.metrics.accuracy:AnnAccuracy",
        "accuracy_drop": "leakbench.metrics.accuracy:AccuracyDrop",
        "reconverted_accuracy": "leakbench.metrics.accuracy:ReconvertedAccuracy",
        "weight_cosine": "leakbench.metrics.motion:WeightCosine",
        "energy_ratio_int32": "leakbench.metrics.energy:EnergyRatioInt32",
        "energy_ratio_fp32": "leakbench.metrics.energy:EnergyRatioFp32",
        "energy_ratio_memory": "leakbench.metrics.energy:EnergyRatioMemory",
        "energy_ratio_quantized": "leakbench.metrics.energy:EnergyRatioQuantized",
        "energy_ratio_paper": "leakbench.metrics.energy:EnergyRatioPaper",
        "timesteps": "leakbench.metrics.costs:Timesteps",
        "training_images_read": "leakbench.metrics.costs:TrainingImagesRead",
        "queries": "leakbench.metrics.costs:Queries",
        "gradient_steps": "leakbench.metrics.costs:GradientSteps",
        "seconds": "leakbench.metrics.costs:Seconds",
    },
}
_NEWEST: dict[Kind, dict[str, str]] = {"attack": {"auto": "auto-v1"}, "defense": {}, "metric": {}}
"""names that stand for the newest version of what keeps its versions apart"""
_registered: dict[Kind, dict[str, type[Any] | str]] = {"attack": {}, "defense": {}, "metric": {}}


@dataclass(frozen=True)
class Entry:
    """One registered plugin: its name, where its class is, and where the name comes from."""

    kind: Kind
    name: str
    target: str
    origin: str


def register(kind: Kind, name: str, target: type[Any] | str) -> None:
    """Make a plugin known under ``name``: a class, or a lazy ``"module:Class"`` string."""
    if kind not in get_args(Kind):
        raise UsageError(f"unknown kind of plugin {kind!r}: 'attack' or 'defense'")
    if name in _BUILT_IN[kind] or name in _NEWEST[kind]:
        raise UsageError(f"the {kind} {name!r} is built in: register yours under another name")
    _registered[kind][name] = target


def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of a kind by name, none of them imported. Built-ins win over third parties."""
    found = {name: Entry(kind, name, target, "built-in") for name, target in _BUILT_IN[kind].items()}
    for name, target in _registered[kind].items():
        text = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
        found.setdefault(name, Entry(kind, name, text, "registered"))
    for point in entry_points(group=f"leakbench.{kind}s"):
        origin = point.dist.name if point.dist else "entry point"
        found.setdefault(point.name, Entry(kind, point.name, point.value, origin))
    return found


def is_built_in(kind: Kind, name: str) -> bool:
    """Whether the name is of a plugin that comes with LeakBench; of a file it never is."""
    return newest(kind, name) in _BUILT_IN[kind]


def built_in(kind: Kind) -> tuple[str, ...]:
    """The names that come with LeakBench."""
    return tuple(_BUILT_IN[kind])


def _entry(kind: Kind, name: str) -> Entry | None:
    # built-ins win, and entries() looks through all installed packages, which takes a while
    target = _BUILT_IN[kind].get(name)
    return Entry(kind, name, target, "built-in") if target else entries(kind).get(name)


def newest(kind: Kind, name: str) -> str:
    """The name that ``name`` stands for now: itself, but for ensembles whose versions are kept apart."""
    return _NEWEST[kind].get(name, name)


def names(kind: Kind) -> list[str]:
    """What may be asked for by name."""
    return [*entries(kind), *_NEWEST[kind]]


def load(kind: Kind, name: str) -> type[Any]:
    """The plugin's class.

    ``name`` is a registered name or ``path/to/file.py:Class``. Raises UnknownName with the nearest name,
    PluginError when the plugin can't be imported or is no plugin of this kind.
    """
    name = newest(kind, name)
    if ".py:" in name:
        plugin = _from_file(name)
    else:
        given = _registered[kind].get(name)
        if isinstance(given, type):
            plugin = given
        else:
            known = _entry(kind, name)
            if known is None:
                raise UnknownName(kind, name, names(kind))
            plugin = _from_target(known)
    # by the class's own word: this module stays below the contracts and imports no torch
    if not (isinstance(plugin, type) and getattr(plugin, "kind", None) == kind):
        raise PluginError(f"{name!r} is no {kind}: it must derive from leakbench.contracts.{kind.capitalize()}")
    problem = _incomplete(plugin)
    if problem:
        raise PluginError(f"the {kind} {name!r} is incomplete: {problem}")
    return plugin


_PLAIN = (str, int, float, bool, tuple, dict, type(None))


@dataclass(frozen=True)
class Source:
    """Where a third party's plugin is from and what it consists of; both empty for what is built in."""

    origin: str = ""
    """file, registered, or the distribution with its version; no path: a file that is moved stays what it is"""
    digest: str = ""
    """sha256 of the file that holds the class, or of the class's own code where there is no file"""


def source(kind: Kind, name: str) -> Source:
    """Of the plugin that :func:`load` gives for ``name``."""
    name = newest(kind, name)
    if ".py:" in name:
        return Source("file", hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest())
    if is_built_in(kind, name):
        return Source()
    origin = entries(kind)[name].origin
    with contextlib.suppress(PackageNotFoundError):  # registered, or an entry point of no distribution
        origin = f"{origin} {version(origin)}"
    return Source(origin, _digest_of(load(kind, name)))


def _digest_of(plugin: type[Any]) -> str:
    """sha256 of the file that holds a class, else of its source, else of its compiled functions."""
    module = sys.modules.get(plugin.__module__)
    file = getattr(module, "__file__", None)
    if file is not None and Path(file).is_file():
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    try:
        return hashlib.sha256(inspect.getsource(plugin).encode()).hexdigest()
    except (OSError, TypeError):  # made by exec: there is no text
        digest = hashlib.sha256()
        for key, value in sorted(vars(plugin).items()):
            code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
            told = marshal.dumps(code).hex() if code else repr(value) if isinstance(value, _PLAIN) else ""
            digest.update(f"{key}={told}\n".encode())  # other values' repr names an address in memory
        return digest.hexdigest()


def registrations() -> list[tuple[Kind, str, str]]:
    """What :func:`register` made known in this process, as lazy strings for another process.

    A class that no module can be asked for (of a notebook, of ``__main__``) is left out: only this process knows it.
    """
    found: list[tuple[Kind, str, str]] = []
    for kind, plugins in _registered.items():
        for name, target in plugins.items():
            text = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
            if not text.startswith("__main__:") and "<locals>" not in text:
                found.append((kind, name, text))
    return found


def everywhere(kind: Kind, name: str) -> bool:
    """Whether other processes can load this plugin, too."""
    return name not in _registered[kind] or any((kind, name) == known[:2] for known in registrations())


def _incomplete(plugin: type[Any]) -> str:
    """What a plugin's class lacks and what would be right, one line; empty where nothing is."""
    name, version = getattr(plugin, "name", None), getattr(plugin, "version", None)
    if not (isinstance(name, str) and name and name.isprintable() and not set(name) & set("[]=,")):
        return f'its name must be a printable text without [ ] = and commas, as in name = "mine", and is {name!r}'
    if type(version) is not int:  # a bool is an int
        return f"its version must be a whole number, as in version = 1, and is {version!r}"
    missing = sorted(getattr(plugin, "__abstractmethods__", ()))
    if missing:
        return f"it must have the method {missing[0]}"
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
            f"the {entry.kind} {entry.name!r} ({entry.origin}) can't be loaded from {entry.target!r}: {_line(error)}"
        ) from error


def _from_file(target: str) -> Any:
    path_text, _, attribute = target.rpartition(":")
    path = checked_path(Path(path_text), "plugin file").resolve()
    if not path.is_file():
        raise UsageError(f"no such plugin file {path_text!r}: give path/to/file.py:Class")
    # The content is part of the name: an edited file is never served from an earlier import, and worker
    # processes that import it anew find the same module.
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    module_name = f"leakbench_plugin_{path.stem}_{digest}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            raise PluginError(f"{path_text} can't be imported: {_line(error)}") from error
    if not hasattr(module, attribute):
        raise UsageError(f"{path_text} has no class {attribute!r}")
    return getattr(module, attribute)


def _line(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@dataclass(frozen=True)
class Summary:
    """What a plugin says of itself, read from its source without importing it."""

    line: str
    needs: str = ""
    uses_public: bool = False


def summary(entry: Entry) -> Summary:
    """First docstring line (and what it needs) of the plugin's class, by parsing its file: listing stays fast."""
    given = _registered[entry.kind].get(entry.name)
    if isinstance(given, type):
        return Summary(
            (given.__doc__ or "").strip().partition("\n")[0],
            getattr(getattr(given, "needs", None), "name", ""),
            bool(getattr(given, "uses_public", False)),
        )
    module, _, class_name = entry.target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return Summary("(can't be found: its module is not installed)")
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception as error:  # a broken third-party package must not break the list
        return Summary(f"(can't be loaded: {_line(error)})")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            line = (ast.get_docstring(node) or "").partition("\n")[0]
            needs, uses_public = _assigned(node, "needs"), _assigned(node, "uses_public")
            return Summary(
                line,
                needs.attr if isinstance(needs, ast.Attribute) else "",
                isinstance(uses_public, ast.Constant) and uses_public.value is True,
            )
    return Summary(f"(can't be loaded: no class {class_name} in {module})")


def _assigned(node: ast.ClassDef, name: str) -> ast.expr | None:
    """What a class's body says after ``name =``."""
    for statement in node.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and target.id == name:
                return statement.value
    return None
