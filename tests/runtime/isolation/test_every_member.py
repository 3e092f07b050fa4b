"""A plugin in a process of its own finds every member of what it is handed, with the same values as elsewhere.

The plugins here hold a probe for each member: one that a contract gains and that has no probe fails the first tests.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from isolated_cells import attack, built, here
from tiny_runs import Tiny, make_tiny, trained_briefly
from torch import nn
from toy_networks import toy_ann

from leakbench import registry
from leakbench.contracts import (
    Access,
    Attack,
    AttackContext,
    Context,
    Cost,
    Defense,
    DefenseContext,
    MembershipAttack,
    PublicImages,
    TrainingData,
    Victim,
)
from leakbench.models.storage import save_network
from leakbench.runtime.isolation.confinement import what_is_lacking
from leakbench.runtime.isolation.said import NetworkRecord
from leakbench.runtime.plugins import load_plugin, made_plugin
from leakbench.runtime.process import fixed_threads
from leakbench.snn import SpikingConfig, SpikingNetwork

confined = [pytest.mark.slow, pytest.mark.skipif(bool(what_is_lacking()), reason="this system can't isolate")]

PROBES = '''
"""Plugins that say in warnings what they find in each member of what they are handed."""

import copy
import logging

import torch
from pydantic import Field

from leakbench.attacks.direct import Direct
from leakbench.contracts import Access, Attack, Defense, MembershipAttack, Params
from leakbench.models.storage import build_ann


def shared(context):
    def build(own):
        seen = [own.flips, *([len(own.public.images)] if hasattr(own, "public") else [])]
        return {"x": torch.rand(2, generator=own.generator), "seen": torch.tensor(seen)}

    kept = context.shared("probed", 1, {"size": 2}, build)
    return kept["x"].tolist(), kept["seen"].tolist()


def part(context):
    with context.part(torch.tensor([0])):
        context.cost.gradient_steps += 3
    return context.snapshots.spent


def student(images):
    return build_ann("vgg4", tuple(images), 3, (0, 1), torch.Generator().manual_seed(7)).requires_grad_(False)


def around(images):
    return torch.linspace(0, 1, images[0] * images[1] * images[2]).reshape(1, *images)


def references(context):
    """Open one twice, and ask both in turn: each draws its own noise."""
    if not context.references:
        return context.references
    told = []
    for reference in context.references:
        one, other = reference.victim(), reference.victim()
        answers = [victim.scores(context.images[:2]).tolist() for victim in (one, other, one)]
        restricted = one.restricted_to(Access.LABELS, one.cost).labels(context.images[:2]).tolist()
        told.append((reference.members.tolist()[:9], int(one.access), one.cost.queries, answers, restricted))
    return told[:2]


CONTEXT = {
    "progress": lambda c: c.progress("probing", 1, 2),
    "generator": lambda c: torch.rand(2, generator=c.generator).tolist(),
    "device": lambda c: str(c.device),
    "flips": lambda c: c.flips,
    "shared_store": lambda c: c.shared_store is not None,
    "shared": shared,
    "checkpoints": lambda c: c.checkpoints is not None,
    "checkpoint": lambda c: c.checkpoint("probed").load(),
    "loop": lambda c: list(c.loop("looping").steps(3)),
    "once": lambda c: c.once("drawn", lambda: torch.rand(2, generator=c.generator)).tolist(),
    "seed": lambda c: c.seed(),
    "stopwatch": lambda c: 0 <= c.stopwatch.seconds < 3600,
    "finding": lambda c: c.finding("probed", 0.5),
    "findings": lambda c: dict(c.findings),
}
ATTACK = {
    "cost": lambda c: vars(c.cost),
    "public": lambda c: (c.public.source, float(c.public.images.float().mean())),
    "references": references,
    "population": lambda c: c.population and [(one.dtype, one.double().sum()) for one in c.population],
    "synthetic": lambda c: None if c.synthetic is None else (c.synthetic.shape, c.synthetic.double().sum()),
    "victim_noise": lambda c: c.victim_noise.get_state().sum(),
    "steps": lambda c: list(c.steps(2, "stepping")),
    "snapshot": lambda c: c.snapshot(c.images),
    "snapshots": lambda c: [(budget, int(images.sum())) for budget, images in c.snapshots.kept],
    "part": part,
    "apart": lambda c: c.apart().snapshots is not c.snapshots,
    "hand_over": lambda c: c.hand_over(student(c.public.images.shape[1:])),
    "student": lambda c: [float(weight.sum()) for weight in c.student.parameters()],
}
DEFENSE = {"timesteps": lambda c: c.timesteps, "precision": lambda c: c.precision}
VICTIM = {
    "access": lambda v: int(v.access),
    "image_shape": lambda v: v.image_shape,
    "classes": lambda v: v.classes,
    "noise": lambda v: v.noise.get_state().sum(),
    "require_answers": lambda v: v.require_answers(Access.LABELS),
    "labels": lambda v: v.labels(around(v.image_shape)).tolist(),
    "scores": lambda v: v.scores(around(v.image_shape)).tolist(),
    "network": lambda v: (v.network.arch, {name: float(one.sum()) for name, one in v.network.state_dict().items()}),
    "restricted_to": lambda v: v.restricted_to(Access.LABELS, v.cost).labels(around(v.image_shape)).tolist(),
    "cost": lambda v: v.cost.queries,
}
DATA = {
    "take": lambda d: [one.double().sum() for one in d.take(torch.tensor([3, 1, 3, -1]))],
    "pixels": lambda d: [(one.dtype, one.sum()) for one in d.pixels(torch.tensor([2, 0]))],
    "sample": lambda d: [one.double().sum() for one in d.sample(4, torch.Generator().manual_seed(1))],
    "batches": lambda d: [len(labels) for _, labels in d.batches(7, torch.Generator().manual_seed(2))],
    "reads": lambda d: d.reads,
    "images_read": lambda d: d.images_read,
    "read_mask": lambda d: d.read_mask.tolist(),
    "state": lambda d: {name: one.tolist() for name, one in d.state().items()},
    "restore": lambda d: d.restore(d.state()),
}
NETWORK = {
    "arch": lambda n: n.arch,
    "image_shape": lambda n: n.image_shape,
    "classes": lambda n: n.classes,
    "input_range": lambda n: n.input_range,
    "precision": lambda n: n.precision,
    "body": lambda n: {name: float(one.sum()) for name, one in n.body.state_dict().items()},
    "forward": lambda n: n(around(n.image_shape)).tolist(),
}


def tell(of, thing, probes):
    for name, probe in probes.items():
        try:
            found = repr(probe(thing))
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        logging.getLogger("leakbench").warning("%s.%s: %s", of, name, found[:900])


class Steps(Params):
    steps: int = Field(6, ge=1, description="steps")


class AtLabels(Attack[Steps]):
    """Probes at LABELS."""

    name = "at-labels"
    version = 3
    cites = "nobody"
    presets = {"quick": {"steps": 2}}
    needs = Access.LABELS
    effort = "steps"
    ensemble = True
    members = (Direct(iterations=2),)
    uses_public = True

    def run(self, victim, targets, context):
        context.images = torch.rand(len(targets), *victim.image_shape, generator=context.generator)
        tell("context", context, CONTEXT | ATTACK)
        tell("victim", victim, VICTIM)
        return context.images


class AtScores(AtLabels):
    """Probes at SCORES."""

    name = "at-scores"
    needs = Access.SCORES


class AtWeights(AtLabels):
    """Probes at WEIGHTS."""

    name = "at-weights"
    needs = Access.WEIGHTS


class OnMembers(MembershipAttack[Steps]):
    """Probes of an attack on members."""

    name = "on-members"
    version = 3
    cites = "nobody"
    presets = {"quick": {"steps": 2}}
    needs = Access.SCORES
    effort = "steps"
    ensemble = True
    members = (Direct(iterations=2),)
    uses_public = True
    uses_references = True
    uses_population = True
    uses_synthetic = True

    def run(self, victim, candidates, labels, context):
        context.images = candidates
        tell("context", context, CONTEXT | ATTACK)
        tell("victim", victim, VICTIM)
        return torch.rand(len(labels), generator=context.generator)


class WithMembersWeights(OnMembers):
    """Probes of an attack on members of the conversion at WEIGHTS."""

    name = "with-members-weights"
    needs = Access.WEIGHTS
    uses_references = False
    asks_of = "conversion"


class Protects(Defense[Steps]):
    """Probes of a defence."""

    name = "protects"
    version = 3
    cites = "nobody"
    presets = {"quick": {"steps": 2}}
    spiking = False
    anytime = True

    def protect(self, ann, data, context):
        tell("context", context, CONTEXT | DEFENSE)
        tell("data", data, DATA)
        tell("network", ann, NETWORK)
        return copy.deepcopy(ann)


class Converts(Protects):
    """Probes of a defence whose network spikes."""

    name = "converts"
    spiking = True
'''

ON_MEMBERS = ("OnMembers", "WithMembersWeights")
ATTACKS = ("AtLabels", "AtScores", "AtWeights", *ON_MEMBERS)
PLUGINS: dict[str, registry.Kind] = {**dict.fromkeys(ATTACKS, "attack"), "Protects": "defense", "Converts": "defense"}
FOR_THE_FRAMEWORK = {"context.victim_noise", "victim.noise"}
"""what the victim draws from: None, where the victim is elsewhere"""
IDENTITY = {"kind", "leakage", "KindParams"}
AS_USUAL = {"Converts": {"spiking"}, "OnMembers": {"asks_of"}, "WithMembersWeights": {"uses_references"}}
"""what a probe has as its base class does, and another probe has not"""
OF_MEMBERS = {"references", "population", "synthetic"}
"""what attacks on members alone are handed"""
SHORT = {"datafree.samples": ["30"], "datafree.synthesis_steps": ["20"]}
"""of the defence that synthesises images: of the victim's network and of every reference"""


def members(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probes") / "probes.py"
    path.write_text(PROBES)
    return path


@pytest.fixture(scope="module")
def probes(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("probes", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_member_of_contexts_has_a_probe(probes: ModuleType) -> None:
    generator = torch.Generator()
    assert members(Context(generator)) == probes.CONTEXT.keys()
    assert members(AttackContext(generator)) - members(Context(generator)) == probes.ATTACK.keys()
    assert members(DefenseContext(generator)) - members(Context(generator)) == probes.DEFENSE.keys()
    assert members(Cost()) == {"queries", "gradient_steps", "seconds", "state", "restore"}
    assert set(PublicImages._fields) == {"images", "source"}


def test_every_member_of_what_is_attacked_and_protected_has_a_probe(probes: ModuleType) -> None:
    network = toy_ann()
    assert members(Victim(network, Access.LABELS)) == probes.VICTIM.keys()
    data = TrainingData(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    assert members(data) == probes.DATA.keys()
    assert members(network) - members(nn.Module()) | {"forward"} == probes.NETWORK.keys()


def test_what_is_kept_of_a_network_is_read_of_a_plugin_s() -> None:
    ann = toy_ann()
    ann.arch, ann.precision = "vgg4", "bfloat16"
    for network in (ann, SpikingNetwork.from_ann(ann, SpikingConfig(4))):
        assert save_network(network)[1].keys() <= NetworkRecord.model_fields.keys()


# --- the same values -------------------------------------------------------------------------------------------------


class Told:
    """What the probes said in the run's process, and in their own, by plugin; and the progress that was shown."""

    def __init__(self, tiny: Tiny, file: Path, folder: Path) -> None:
        self.lines: dict[str, list[dict[str, str]]] = {name: [] for name in PLUGINS}
        self.shown: dict[str, list[set[tuple[str, int, int]]]] = {name: [] for name in PLUGINS}
        self.outcomes: dict[str, list[Any]] = {name: [] for name in PLUGINS}
        for isolated in (False, True):
            with here(isolated, folder / f"{isolated}"), fixed_threads(1):
                for name in PLUGINS:
                    self._run(tiny, folder / f"{isolated}", f"{file}:{name}", name)

    def _run(self, tiny: Tiny, cache: Path, target: str, name: str) -> None:
        collected, shown = _Lines(), set[tuple[str, int, int]]()
        log = logging.getLogger("leakbench")
        log.addHandler(collected)
        try:
            compute: Any = attack if name in ATTACKS else built
            other: dict[str, Any] = {"precision": "bfloat16"}
            if name in ON_MEMBERS:
                other = {"defense": "datafree", "ann": None, "set": SHORT}
            elif name in ATTACKS:
                other = {"defense": "han2020"}
            outcome = compute(tiny, cache, target, progress=lambda *step: shown.add(step), **other)
        finally:
            log.removeHandler(collected)
        self.lines[name].append(collected.told)
        self.shown[name].append(shown)
        self.outcomes[name].append(outcome)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        name, _, found = record.getMessage().partition(": ")
        self.told[name] = found


@pytest.fixture(scope="module")
def told(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("members")
    with fixed_threads(1):
        tiny = make_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        trained_briefly(patch)
        return Told(tiny, file, folder)


@pytest.mark.long
@pytest.mark.parametrize("name", PLUGINS)
class TestWhatAPluginFinds:
    pytestmark = confined

    def test_is_the_same(self, told: Told, probes: ModuleType, name: str) -> None:
        elsewhere, isolated = told.lines[name]
        if name in ATTACKS:
            both = {"context": probes.CONTEXT | probes.ATTACK, "victim": probes.VICTIM}
        else:
            both = {"context": probes.CONTEXT | probes.DEFENSE, "data": probes.DATA, "network": probes.NETWORK}
        assert elsewhere.keys() == {f"{of}.{member}" for of, probed in both.items() for member in probed}
        left_out = FOR_THE_FRAMEWORK if "Weights" not in name else set()
        assert {k: v for k, v in isolated.items() if k not in left_out} == {
            k: v for k, v in elsewhere.items() if k not in left_out
        }

    def test_is_no_default(self, told: Told, probes: ModuleType, name: str) -> None:
        """Else a member that is not handed over would look as if it were."""
        kind: type[Context] = AttackContext if name in ATTACKS else DefenseContext
        for field in dataclasses.fields(kind):
            left_out = {"progress"} if name in ON_MEMBERS else {"progress", *OF_MEMBERS}
            left_out |= {"references"} if not getattr(getattr(probes, name), "uses_references", False) else set()
            if (
                field.default is not dataclasses.MISSING
                and not field.name.startswith("_")
                and field.name not in left_out
            ):
                found = told.lines[name][0][f"context.{field.name}"]
                assert found not in (repr(field.default), "False", "None"), field.name
                assert "Error" not in found, field.name

    def test_is_shown_and_counted(self, told: Told, name: str) -> None:
        elsewhere, isolated = told.shown[name]
        assert ("probing", 1, 2) in elsewhere & isolated
        one, other = told.outcomes[name]
        if name in ATTACKS:
            assert (one.cost.queries, one.cost.gradient_steps, one.findings) == (
                other.cost.queries, other.cost.gradient_steps, other.findings,
            )  # fmt: skip
            one, other = one.artifact, other.artifact
        else:
            assert one.images_read == other.images_read > 0
            assert one.findings == other.findings == {"probed": 0.5}
            one, other = one.deployed.artifact, other.deployed.artifact
            assert one.record["network"] == other.record["network"]
            assert one.record["training_image_reads"] == other.record["training_image_reads"]
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)


@pytest.fixture(scope="module")
def stand_ins(file: Path) -> dict[str, tuple[Any, Any]]:
    """Name -> the class in the plugin's place, and what it is made with parameters."""
    with here(True):
        targets = {name: (kind, f"{file}:{name}") for name, kind in PLUGINS.items()}
        return {name: (load_plugin(*one), made_plugin(*one, {"steps": 4})) for name, one in targets.items()}


@pytest.mark.parametrize("name", PLUGINS)
class TestAStandIn:
    pytestmark = confined

    def test_has_every_attribute_of_its_class(
        self, stand_ins: dict[str, tuple[Any, Any]], probes: ModuleType, name: str
    ) -> None:
        base: type[Any] = Attack if PLUGINS[name] == "attack" else Defense
        base = MembershipAttack if name in ON_MEMBERS else base
        plugin, (there, _) = getattr(probes, name), stand_ins[name]
        annotated = {one for cls in base.__mro__ for one in inspect.get_annotations(cls) if not one.startswith("_")}
        # of the images that it prepares only built-in attacks are asked
        elsewhere = {"params", "anytime", "takes_timesteps", "run", "protect", "prepared_images"}
        for attribute in (members(base) | annotated) - elsewhere:
            ours, theirs = getattr(plugin, attribute), getattr(there, attribute)
            if attribute == "Params":
                ours, theirs = ours.model_fields.keys(), theirs.model_fields.keys()
            elif attribute == "members":
                ours, theirs = (
                    [(one.name, one.version, one.params.model_dump(mode="json")) for one in these]
                    for these in (ours, theirs)
                )
            assert theirs == ours, attribute
            usual = IDENTITY | AS_USUAL.get(name, set())
            assert attribute in usual or ours != getattr(base, attribute, None), f"no probe sets {attribute}"
        assert there.__doc__ == plugin.__doc__

    def test_has_the_parameters_that_it_is_made_with(
        self, stand_ins: dict[str, tuple[Any, Any]], probes: ModuleType, name: str
    ) -> None:
        ours, (_, there) = getattr(probes, name)(steps=4), stand_ins[name]
        for options in ({}, {"exclude_defaults": True}):
            assert there.params.model_dump(mode="json", **options) == ours.params.model_dump(mode="json", **options)
        assert there.anytime == getattr(ours, "anytime", False)
        assert there.takes_timesteps == getattr(ours, "takes_timesteps", True)
