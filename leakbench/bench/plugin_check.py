"""The contract of a defence, an attack or a metric, tried in seconds on the digits with a small network.

What the framework checks in every run is not checked anew: the stages of a run are run, and what they raise is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from leakbench import registry
from leakbench.bench.grid import SIZES, make_config
from leakbench.bench.plan import plan
from leakbench.bench.stages.attack import attacked
from leakbench.bench.stages.utility import utility
from leakbench.bench.stages.victim import READ, BuiltVictim, VictimRecord, built_victim
from leakbench.bench.trial import (
    DATASET,
    TIMESTEPS,
    trial_ann,
    trial_data,
    trial_images,
    trial_reconstructions,
)
from leakbench.cells import AttackCell, UtilityCell, Variant
from leakbench.contracts import (
    Access,
    AttackContext,
    Context,
    Cost,
    DefenseContext,
    ImageClassifier,
    Plugin,
    TrainingData,
)
from leakbench.errors import LeakBenchError, NotApplicable, PluginError, UsageError, described
from leakbench.leakage import leakage_kind
from leakbench.leakage.controls import UNPROTECTED
from leakbench.leakage.kind import Measured
from leakbench.leakage.measured_metric import CellMetric, measured_metric
from leakbench.metrics.membership import MembershipMetric, ScoredCandidates
from leakbench.metrics.metric import Measurement, Metric
from leakbench.metrics.reconstructions import Memo, ReconstructionMetric, Reconstructions
from leakbench.models.storage import save_network
from leakbench.runtime.fence import fenced, raised_at, watched
from leakbench.runtime.isolation.remote import WatchedVictim
from leakbench.runtime.plugins import load_plugin, made_plugin
from leakbench.runtime.workspace import Settings, Workspace
from leakbench.snn import SpikingNetwork

EFFORT = 10
"""of an attack, where it says what its effort is and nothing else was set"""
_SEED = 1
"""of the run with another seed, outside of the stages"""

Status = Literal["ok", "note", "wrong"]
"""a note is no breach of the contract, and worth a look"""


class Finding(NamedTuple):
    """One thing that was tried."""

    subject: str
    status: Status
    text: str


def check_plugin(
    kind: registry.Kind, target: str, settings: Mapping[str, Sequence[Any]] | None = None, model: str = "vgg4"
) -> Iterator[Finding]:
    """Try a plugin by its registered name or ``path/to/file.py:Class``; what is found comes as it is found.

    ``settings`` are "plugin.param" -> one value, ``model`` is what the digits' network is. Nothing is kept. Raises
    UsageError for a ``kind`` without a contract to try, and for a name or file that is not there.
    """
    if kind not in _TRIALS:
        raise UsageError(f"{target!r} is a {kind}: defences, attacks and metrics can be checked")
    if kind == "metric" and registry.is_built_in(kind, target):
        raise UsageError(f"the metric {target!r} is built in and measured in every run: check one of yours")
    try:
        plugin: type[Plugin[Any]] = load_plugin(kind, target)
    except PluginError as error:
        yield Finding("loads", "wrong", described(error))
        return
    yield Finding("loads", "ok", f"{kind} {plugin.name}, version {plugin.version}")
    yield from _description(plugin)
    with TemporaryDirectory(prefix="leakbench-check-") as folder:
        trial = _Trial(kind, plugin, target, settings or {}, model, Path(folder))
        findings = list(trial.parameters())
        yield from findings
        if any(finding.status == "wrong" for finding in findings):
            return
        try:
            yield from _TRIALS[kind](trial)
        except NotApplicable as error:
            hint = "" if kind == "metric" else " (another --model may do)"
            yield Finding("runs", "wrong", f"not applicable to {model} on the {DATASET}: {error}{hint}")
        except Exception as error:
            yield Finding("runs", "wrong", f"{described(error)}{raised_at(error, plugin)}")


def _description(plugin: type[Plugin[Any]]) -> Iterator[Finding]:
    """What it says of itself."""
    summary = registry.first_sentence(plugin.__doc__)
    if summary:
        yield Finding("summary", "ok", summary)
    else:
        yield Finding("summary", "wrong", "the class has no docstring: its first sentence is shown by list and info")
    if plugin.cites:
        yield Finding("citation", "ok", plugin.cites)
    else:
        yield Finding("citation", "wrong", 'none: say where it is from, as in cites = "Doe 2020, algorithm 1"')
    if issubclass(plugin, Metric):
        try:
            declared = plugin.declaration()
        except PluginError as error:
            yield Finding("declaration", "wrong", str(error))
            return
        direction = f"{declared.leaks} of it: more leaks" if declared.leaks else "measures no leakage"
        yield Finding("declaration", "ok", f"{declared.title!r}, unit {declared.unit}, {direction}")


class _Trial:
    """A plugin, the network that it is tried on, and stores of its own in a folder."""

    def __init__(
        self,
        kind: registry.Kind,
        plugin: type[Plugin[Any]],
        target: str,
        settings: Mapping[str, Sequence[Any]],
        model: str,
        folder: Path,
    ) -> None:
        self.kind, self.plugin, self.target, self.model = kind, plugin, target, model
        self._settings, self._folder, self._stores = settings, folder, 0
        self.ann = trial_ann(model)
        self._weights = folder / "ann.safetensors"
        save_file({name: value.contiguous() for name, value in self.ann.state_dict().items()}, self._weights)

    def parameters(self) -> Iterator[Finding]:
        """Whether they and those of every preset are accepted. UsageError where some were given and are not."""
        fields = self.plugin.Params.model_fields
        effort = str(getattr(self.plugin, "effort", ""))
        try:
            for preset in SIZES:
                self.cell(preset)
        except LeakBenchError as error:
            if self._settings:
                raise
            yield Finding("parameters", "wrong", str(error))
            return
        yield Finding("parameters", "ok", ", ".join(fields) or "none")
        undescribed = [name for name, field in fields.items() if not field.description]
        if undescribed:
            yield Finding("parameters", "note", f"without a description: {', '.join(undescribed)}")
        if effort and effort not in fields:
            yield Finding("parameters", "wrong", f"effort names {effort!r}, which is none of them")

    def workspace(self) -> Workspace:
        """With a store in which nothing is yet."""
        self._stores += 1
        return Workspace(Settings(cache=str(self._folder / f"store-{self._stores}")), lambda _what, _done, _total: None)

    def cell(self, preset: str = "quick") -> UtilityCell:
        """The one cell of a run that has the plugin in it."""
        sides = {"defense": UNPROTECTED, "attack": "none", self.kind: self.target}
        settings = self._settings
        if issubclass(self.plugin, Metric):
            sides["attack"] = _attack_on(self.plugin.leakage)
        if self.kind == "attack":
            settings = {**self._small(preset), **settings}
        grid = make_config({
            **sides, "dataset": DATASET, "model": self.model, "timesteps": TIMESTEPS, "images_per_class": 1,
            "controls": False, "preset": preset, "ann": str(self._weights), "set": settings,
        })  # fmt: skip
        wanted = UtilityCell if self.kind == "defense" else AttackCell
        cells = [cell for cell in plan(grid) if type(cell) is wanted]
        if self.kind == "attack":  # without those that are run together with it
            cells = [cell for cell in cells if isinstance(cell, AttackCell) and cell.attack.name == self.plugin.name]
        if len(cells) != 1:
            raise UsageError("--set: give one value of each parameter")
        (cell,) = cells
        assert isinstance(cell, UtilityCell)
        return cell

    def _small(self, preset: str) -> dict[str, Sequence[Any]]:
        """An attack's effort, where it takes that little."""
        effort = str(getattr(self.plugin, "effort", ""))
        if effort not in self.plugin.Params.model_fields:
            return {}
        try:
            usual = {**self.plugin.presets.get(preset, {})}
            given = made_plugin(self.kind, self.target, usual).params.model_dump()[effort]
            made_plugin(self.kind, self.target, {**usual, effort: min(given, EFFORT)})
        except (LeakBenchError, TypeError, KeyError):  # the plan says what is wrong with them
            return {}
        return {f"{self.plugin.name}.{effort}": [min(given, EFFORT)]}

    def made(self, variant: Variant) -> Any:
        """The plugin with a cell's parameters."""
        return made_plugin(self.kind, variant.target, variant.params, variant.code)


def _attack_on(leakage: str) -> str:
    """A built-in attack on that kind of leak: the plan of a metric needs one. The first of any, where there is none."""
    names = registry.built_in("attack")
    return next((name for name in names if load_plugin("attack", name).leakage == leakage), names[0])


# --- what all kinds have in common ---------------------------------------------------------------------------------


def _left(changed: list[str]) -> Finding:
    if changed:
        return Finding("global state", "wrong", f"changed and not put back: {', '.join(changed)}")
    return Finding("global state", "ok", "torch's settings, environment and folder are as they were")


def _repeated(first: Mapping[str, Any], again: Mapping[str, Any], other: Mapping[str, Any]) -> Finding:
    """Of what two runs with the same seed gave, by name, and what one with another did."""
    differing = [name for name in first if not _equal(first[name], again.get(name))]
    if differing or first.keys() != again.keys():
        shown = ", ".join(differing[:3]) or "what there is"
        text = f"two runs with one seed differ ({shown}): draw from context.generator, and keep nothing between calls"
        return Finding("deterministic", "wrong", text)
    same = all(_equal(first.get(name), value) for name, value in other.items())  # maybe only some of it was run
    seeded = "the same with another seed" if same else "another seed gives another outcome"
    return Finding("deterministic", "ok", f"two runs with one seed are equal; {seeded}")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def _set(variant: Variant) -> str:
    return ", ".join(f"{name}={value}" for name, value in variant.params.items()) or "no parameters"


# --- the kinds -----------------------------------------------------------------------------------------------------


def _defense(trial: _Trial) -> Iterator[Finding]:
    cell, workspace = trial.cell(), trial.workspace()
    victim = built_victim(workspace, cell)
    network, tensors = victim.deployed.network, victim.deployed.artifact.tensors
    steps = f", T = {network.config.timesteps}" if isinstance(network, SpikingNetwork) else ""
    yield Finding("runs", "ok", f"on {trial.model} and the {DATASET} with {_set(cell.defense)}")
    yield Finding("returns", "ok", f"{type(network).__name__} for {network.classes} classes{steps}, finite weights")
    yield Finding("storable", "ok", "written to a store and read back, it answers the same")
    yield Finding("inputs", "ok", "the ANN and the private images are as they were")
    read = f"{victim.images_read} of {len(trial_data().train)} read"
    yield Finding("private images", "ok", read if victim.images_read else f"{read}: it needs no data")
    worth = {value.metric: value.value for value in utility(workspace, cell, victim).values}
    yield Finding("accuracy", "ok", f"{worth['accuracy']:.2f}, that of the ANN is {worth['ann_accuracy']:.2f}")
    again = built_victim(trial.workspace(), cell)
    context = DefenseContext(
        torch.Generator().manual_seed(_SEED), timesteps=cell.timesteps or 1, precision=cell.precision
    )
    split = trial_data().train
    with fenced(trial.plugin.name, _SEED), watched() as changed:
        handle = TrainingData(split.images.clone(), split.labels.clone())
        plugin = trial.made(cell.defense)
        other = plugin(victim.ann.network(workspace.device), handle, context)
    changed += getattr(plugin, "left_changed", [])  # of its own process
    yield _repeated(tensors, again.deployed.artifact.tensors, {**save_network(other)[0], READ: handle.read_mask})
    if cell.all_timesteps:
        yield _at_any_timesteps(trial, cell, victim)
    yield _left(changed)
    yield Finding("cost", "ok", f"{again.seconds:.2f} s")  # the first time, kernels are compiled


def _at_any_timesteps(trial: _Trial, cell: UtilityCell, victim: BuiltVictim) -> Finding:
    """Whether a defence that says so makes the same network at another T."""
    steps = 2 * max(cell.all_timesteps)
    at_another = cell.model_copy(update={"timesteps": steps, "all_timesteps": (steps,)})
    try:
        longer = built_victim(trial.workspace(), at_another)
    except Exception as error:
        place = raised_at(error, trial.plugin)
        return Finding("any T", "wrong", f"anytime = True, and at T = {steps} it raises: {described(error)}{place}")
    one, other = victim.deployed.artifact, longer.deployed.artifact
    differing = [name for name, tensor in one.tensors.items() if not _equal(tensor, other.tensors.get(name))]
    settings, others = (dict(VictimRecord.read(artifact).network.get("spiking") or {}) for artifact in (one, other))
    differing += [name for name in settings if name != "timesteps" and settings[name] != others.get(name)]
    if not differing:
        return Finding("any T", "ok", f"at T = {steps} it makes the same network")
    shown = ", ".join(differing[:3])
    return Finding("any T", "wrong", f"anytime = True, and at T = {steps} it makes another network ({shown})")


def _attack(trial: _Trial) -> Iterator[Finding]:
    if getattr(trial.plugin, "uses_references", False):
        yield Finding("runs", "note", "not tried: it uses reference networks, and training some takes minutes")
        return
    cell, workspace = trial.cell(), trial.workspace()
    assert isinstance(cell, AttackCell)
    needs: Access = trial.plugin.needs  # type: ignore[attr-defined]
    kind = leakage_kind(cell.leakage)
    victim = built_victim(workspace, cell)
    task = kind.task(workspace, cell, victim.deployed)
    context = AttackContext(torch.Generator().manual_seed(_SEED), flips=trial_data().flips)
    if cell.public:
        context.public = workspace.public(cell.public, cell.dataset)[0]
    handed = victim.deployed.copy()
    before = {name: value.clone() for name, value in handed.state_dict().items()}
    asked: set[Access] = set()
    watched_victim = WatchedVictim(handed, Access.WEIGHTS, Cost(), asked)
    plugin = trial.made(cell.attack)
    try:
        with fenced(trial.plugin.name, _SEED), watched() as changed:
            outcome = task.run(plugin, watched_victim, context)
        changed += getattr(plugin, "left_changed", [])  # of its own process
    except NotApplicable:
        if max(asked, default=needs) <= needs:
            raise
        wanted = max(asked).name
        yield Finding("access", "wrong", f"it says that it needs {needs.name}, and it asks for {wanted}")
        return
    yield Finding("runs", "ok", f"on {trial.model} and the {DATASET} with {_set(cell.attack)}")
    other = task.to_tensors(outcome, context)
    name, returned = next(iter(other.items()))
    yield Finding("returns", "ok", f"{name} {list(returned.shape)}, finite and in range")
    yield _access(needs, asked)
    if not all(torch.equal(before[name], value) for name, value in handed.state_dict().items()):
        yield Finding("inputs", "note", "it changed the network that it was handed: later queries are to another one")
    else:
        yield Finding("inputs", "ok", "the network is as it was")
    first = attacked(workspace, cell, victim, kind)
    again_in = trial.workspace()
    again = attacked(again_in, cell, built_victim(again_in, cell), kind)
    kept = attacked(workspace, cell, victim, kind).artifact.tensors
    if any(not _equal(tensor, kept[name]) for name, tensor in first.artifact.tensors.items()):
        yield Finding("storable", "wrong", "read back from the store it is something else")
    else:
        yield Finding("storable", "ok", "written to a store and read back")
    yield _repeated(first.artifact.tensors, again.artifact.tensors, other)
    yield _left(changed)
    cost = again.cost
    yield Finding("cost", "ok", f"{cost.seconds:.2f} s, {cost.gradient_steps} gradient steps, {cost.queries} queries")


def _access(needs: Access, asked: set[Access]) -> Finding:
    names = {Access.LABELS: "labels", Access.SCORES: "scores", Access.WEIGHTS: "the network"}
    used = ", ".join(names[one] for one in sorted(asked)) or "nothing"
    if asked and max(asked) < needs:
        return Finding("access", "note", f"it needs {max(asked).name}, and says {needs.name}: it asked for {used}")
    return Finding("access", "ok", f"{needs.name}; it asked for {used}")


@dataclass(frozen=True)
class _Sample:
    """What a metric is tried on."""

    name: str
    measure: Callable[[Context], Measurement]


def _metric(trial: _Trial) -> Iterator[Finding]:
    (variant,) = trial.cell().metrics
    metric: Metric[Any] = trial.made(variant)
    leaking, harmless = samples = _samples(metric, trial.ann)
    first, again = (_measured(trial, metric, variant, samples) for _ in range(2))
    yield Finding("runs", "ok", f"on the {DATASET} with {_set(variant)}")
    for sample in samples:
        for reason in first[sample.name].refused:
            yield Finding("values", "wrong" if sample is leaking else "note", f"on {sample.name}: {reason}")
    values = {name: measured.values[0].value for name, measured in first.items() if measured.values}
    if leaking.name not in values:
        return
    text = ", ".join(f"{value:.4g} on {name}" for name, value in values.items())
    yield Finding("values", "ok", f"{text}; {len(first[leaking.name].classes)} of single classes")
    if metric.leaks and harmless.name in values:
        more, less = values[leaking.name], values[harmless.name]
        if (more <= less) if metric.leaks == "more" else (more >= less):
            yield Finding("direction", "note", f"it says that {metric.leaks} of it is more leakage: not so here")
    other = Measured()
    started = time.perf_counter()
    with fenced(metric.name, _SEED), watched() as changed:
        other.add(metric.name, leaking.measure(Context(torch.Generator().manual_seed(_SEED))))
    seconds = time.perf_counter() - started
    yield _repeated(first, again, {leaking.name: other})
    yield _left(changed)
    yield Finding("cost", "ok", f"{seconds:.2f} s on {leaking.name}")


def _measured(trial: _Trial, metric: Metric[Any], variant: Variant, samples: Sequence[_Sample]) -> dict[str, Measured]:
    """By sample, as a run measures it."""
    workspace, one = trial.workspace(), CellMetric(metric, variant.identity, third_party=True)
    return {s.name: measured_metric(workspace, one, s.measure, 0, {"images": s.name}, []) for s in samples}


def _samples(metric: Metric[Any], ann: ImageClassifier) -> tuple[_Sample, _Sample]:
    """What leaks much and what leaks nothing."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(metric, ReconstructionMetric):
        images, labels = trial_images()
        noise = torch.randint(256, images.shape, generator=generator).to(torch.uint8)

        def of(shown: Tensor) -> Callable[[Context], Measurement]:
            drawn: Reconstructions = trial_reconstructions(shown, labels, ann)
            return lambda context: metric.measure(replace(drawn.copied(Memo()), context=context))

        return _Sample("real images", of(images)), _Sample("noise", of(noise))
    if isinstance(metric, MembershipMetric):
        members = torch.arange(200) % 2 == 0
        chance = torch.randn(200, generator=generator, dtype=torch.float64)

        def scored(scores: Tensor) -> Callable[[Context], Measurement]:
            return lambda _context: metric.measure(ScoredCandidates(scores, members).copied())

        return _Sample("scores of members above others", scored(chance + 2 * members)), _Sample(
            "chance", scored(chance)
        )
    base = "leakbench.metrics.reconstructions.ReconstructionMetric or leakbench.metrics.membership.MembershipMetric"
    raise PluginError(f"{metric.name} must derive from {base}")


_TRIALS: Mapping[str, Callable[[_Trial], Iterator[Finding]]] = {
    "defense": _defense,
    "attack": _attack,
    "metric": _metric,
}
