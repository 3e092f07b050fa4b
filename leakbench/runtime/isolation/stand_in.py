"""What takes a plugin's place in the process that has the data: it runs the plugin elsewhere, and checks what comes.

A stand-in is a class like the plugin's own, made from what the plugin says of itself. Called, it is an Attack or a
Defense like any other, whose checks are the framework's; its ``run`` or ``protect`` asks the plugin's process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor

from leakbench import registry
from leakbench.contracts import (
    Access,
    Attack,
    AttackContext,
    Context,
    Cost,
    Defense,
    DefenseContext,
    ImageClassifier,
    MembershipAttack,
    Params,
    TrainingData,
    Victim,
)
from leakbench.contracts.generators import set_state
from leakbench.contracts.snapshots import LADDER
from leakbench.errors import LeakBenchError, PluginError, printable
from leakbench.models import Architecture
from leakbench.models.storage import save_network
from leakbench.models.untrusted import NetworkRecord, NoNetwork, network_of
from leakbench.runtime.isolation.grants import package_of
from leakbench.runtime.isolation.handlers import AttackHandler, DefenseHandler, Handler
from leakbench.runtime.isolation.messages import Broken, Message, below
from leakbench.runtime.isolation.said import (
    EQUIPMENT,
    AttackSaid,
    DefenseSaid,
    Description,
    Ended,
    Found,
    M,
    Made,
    Parameter,
    raise_as_said,
    read,
)
from leakbench.runtime.isolation.server import Opening, PluginServer
from leakbench.snn import SpikingNetwork

T = TypeVar("T")
Network = SpikingNetwork | ImageClassifier


class _Choices:
    """The parameters' class of a stand-in: names, and nothing that would have to be run."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.model_fields = {
            one.name: SimpleNamespace(description="described" if one.described else "") for one in parameters
        }


class MadeParams:
    """A plugin's parameters, checked by the plugin in its own process."""

    def __init__(self, made: Made) -> None:
        self._made = made

    def model_dump(self, *, mode: str = "python", exclude_defaults: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """All of them, or those that are not the defaults; plain data in either mode."""
        return dict(self._made.changed if exclude_defaults else self._made.params)


class _StandIn:
    """What stand-ins of both kinds have: whose place they take, and where it runs."""

    server: ClassVar[PluginServer]
    opening: ClassVar[Opening]
    facts: ClassVar[Description]
    name: ClassVar[str]

    def __init__(self, **params: Any) -> None:
        made = self.making(params)
        self.params: Any = MadeParams(made)
        self._given = made.params
        self.anytime = made.anytime
        self.takes_timesteps = made.takes_timesteps
        self.left_changed: list[str] = []
        """of the process's global state, by the last call"""

    @classmethod
    def making(cls, params: Mapping[str, Any]) -> Made:
        """What the plugin makes of these parameters."""
        plain = json.loads(json.dumps(dict(params), default=str))
        return asked(cls.server, cls.opening, Made, {"type": "make", "params": plain})

    def _called(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor], handler: Handler) -> Message:
        """The plugin's last word in a call; what it raised is raised."""
        try:
            answer = self.server.ask({**head, "params": self._given}, tensors, handler)
        finally:
            self.server.end_call()  # what it saw must not answer what is asked of the next
        ended = self.checked(lambda: read(Ended, answer.head))
        self.left_changed = list(ended.changed)
        for access in sorted(ended.asked):
            handler.asked(Access(access))
        if answer.type == "raised":
            self.checked(lambda: raise_as_said(answer))
        return answer

    def checked(self, look: Callable[[], T]) -> T:
        """What ``look`` finds in an answer; PluginError where the answer is not as it should be."""
        try:
            return look()
        except Broken as error:
            self.server.end_call()
            raise PluginError(f"the process of {self.name} {error}") from None


def asked(server: PluginServer, opening: Opening, kind: type[M], head: Mapping[str, Any]) -> M:
    """What a plugin answers without a call. Raises what it raised."""
    opened(server, opening, fresh=False)
    answer = server.ask(head)
    try:
        if answer.type == "raised":
            raise_as_said(answer)
        return read(kind, answer.head)
    except Broken as error:
        server.end_call()
        raise PluginError(f"the process of {opening.label} {error}") from None


def built(name: str, record: NetworkRecord, tensors: Mapping[str, Tensor], device: torch.device, given: str) -> Network:
    """A network that a plugin sent; PluginError where it is none, or of a third party's model that is not the
    ``given`` architecture's: nobody asked for the code of that."""
    architecture = Architecture.parse(record.arch)
    theirs, named = ((one.model, one.code) for one in (architecture, Architecture.parse(given)))
    if not registry.is_built_in("model", architecture.model) and theirs != named:
        raise PluginError(
            f"{name} sent a network of the model {printable(architecture.label)[:100]!r}: it must be built in, or the "
            "one that the plugin was given; install the model as a package (docs/write-a-model.md), or run with "
            "--no-isolate"
        )
    try:
        return network_of(record, tensors, device)
    except NoNetwork as error:
        raise Broken(f"sent no network: {error}") from None
    except LeakBenchError as error:
        raise PluginError(f"{name}: {error}") from None


def opened(server: PluginServer, opening: Opening, fresh: bool = True) -> None:
    """A process in which the plugin has been imported; raises what it raised then."""
    began = server.open(opening, fresh)
    if began is not None and began.type == "raised":
        server.end_call()
        try:
            raise_as_said(began)
        except Broken as error:
            raise PluginError(f"the process of {opening.label} {error}") from None


def stand_in(server: PluginServer, opening: Opening, facts: Description) -> type[Any]:
    """A class in the plugin's place."""
    bases: dict[str, type[Any]] = {"defense": _IsolatedDefense}
    if opening.kind == "attack":
        kinds = {Attack.leakage: _IsolatedAttack, MembershipAttack.leakage: _IsolatedMembershipAttack}
        if facts.leakage not in kinds:
            raise PluginError(f"{facts.name}: its leakage must be {' or '.join(kinds)}, got {facts.leakage!r}")
        bases["attack"] = kinds[facts.leakage]
    body = {
        "server": server,
        "opening": opening,
        "facts": facts,
        "__doc__": facts.doc,
        "__module__": __name__,
        "Params": _Choices(facts.parameters),
        **{name: getattr(facts, name) for name in ("name", "version", "cites", "presets")},
    }
    if opening.kind == "attack":
        body |= {name: getattr(facts, name) for name in ("effort", "ensemble", "uses_public")}
        if facts.leakage == MembershipAttack.leakage:
            body |= {name: getattr(facts, name) for name in EQUIPMENT}
            body["asks_of"] = facts.asks_of or MembershipAttack.asks_of
        if not facts.needs:
            raise PluginError(f"{facts.name}: it must say what it needs, as in needs = Access.SCORES")
        body["needs"] = Access(facts.needs)
        body["members"] = tuple(
            SimpleNamespace(name=one.name, version=one.version, params=MadeParams(_as_made(one.params)))
            for one in facts.members
        )
    else:
        body["spiking"] = facts.spiking
    return type("StandIn", (bases[opening.kind],), body)


def _as_made(params: dict[str, JsonValue]) -> Made:
    return Made(params=params, changed=params, anytime=False, takes_timesteps=True)


# --- attacks ---------------------------------------------------------------------------------------------------------


class _RunsAttack(_StandIn):
    """The part that attacks of all kinds of leak have in common."""

    needs: ClassVar[Access]

    def _outcome(self, victim: Victim, given: Sequence[Tensor], context: AttackContext, snapshots: bool) -> Any:
        network = victim._network if victim.access == Access.WEIGHTS else None
        opened(self.server, _with_model(self.opening, network))
        context.stopwatch.restart()  # starting a process is no part of what an attack takes
        handler = AttackHandler(self.server, victim, context, members=not snapshots)
        head: dict[str, Any] = {
            "type": "attack",
            "access": int(victim.access),
            "image_shape": list(victim.image_shape),
            "classes": victim.classes,
            "given": len(given),
            "snapshots": snapshots,
            **handler.surroundings(context),
        }
        tensors = {f"given/{number}": tensor for number, tensor in enumerate(given)} | handler.states(context)
        tensors |= _equipment(context)
        if network is not None:
            kept, head["network"] = save_network(network)
            tensors |= {f"network/{name}": tensor for name, tensor in kept.items()}
            if victim.noise is not None:
                tensors["noise"] = victim.noise.get_state()
        answer = self._called(head, tensors, handler)
        return self.checked(lambda: self._read(answer, victim, len(given[0]) if snapshots else None, context))

    def _read(self, answer: Message, victim: Victim, targets: int | None, context: AttackContext) -> Any:
        said = read(AttackSaid, answer.head)
        if victim.access == Access.WEIGHTS:  # who has the network can ask it without anybody who counts
            context.cost.queries = said.queries
        context.cost.gradient_steps = said.gradient_steps
        _find(context, said)
        _set_state(context.generator, answer.tensors.get("generator"))
        if said.student is not None:
            if tuple(said.student.image_shape) != victim.image_shape or said.student.classes != victim.classes:
                raise PluginError(f"{self.name} handed over a student of other images or classes than the victim's")
            given = victim._network.arch
            student = built(self.name, said.student, below(answer.tensors, "student/"), context.device, given)
            if not isinstance(student, ImageClassifier):
                raise PluginError(f"{self.name} handed over a student that is no ImageClassifier")
            context.hand_over(student)
        if targets is not None:
            offered = below(answer.tensors, "snapshots/")
            context.snapshots.changes().restore(_checked_snapshots(offered, targets, victim.image_shape, context.cost))
        if "outcome" in answer.tensors:
            return answer.tensors["outcome"]
        return type(said.returned or "nothing", (), {})()  # whose name the error about it says


class _IsolatedAttack(_RunsAttack, Attack[Params]):
    """An attack on classes that runs elsewhere."""

    def run(self, victim: Victim, targets: Tensor, context: AttackContext) -> Tensor:
        outcome: Tensor = self._outcome(victim, [targets], context, snapshots=True)
        return outcome


class _IsolatedMembershipAttack(_RunsAttack, MembershipAttack[Params]):
    """An attack on members that runs elsewhere."""

    def run(self, victim: Victim, candidates: Tensor, labels: Tensor, context: AttackContext) -> Tensor:
        outcome: Tensor = self._outcome(victim, [candidates, labels], context, snapshots=False)
        return outcome


def _equipment(context: AttackContext) -> dict[str, Tensor]:
    """What an attack on members is handed besides the victim: of references, which candidates they were trained on."""
    handed: dict[str, Tensor] = {}
    if context.references:
        handed["references"] = torch.stack([reference.members for reference in context.references])
    if context.population is not None:
        handed |= {f"population/{name}": tensor for name, tensor in context.population._asdict().items()}
    if context.synthetic is not None:
        handed["synthetic"] = context.synthetic
    return handed


def _checked_snapshots(
    offered: Mapping[str, Tensor], targets: int, shape: tuple[int, int, int], cost: Cost
) -> Mapping[str, Tensor]:
    """The state of an attack's snapshots, where it is one that agrees with its cost; Broken otherwise."""
    spent = offered.get("spent")
    if spent is None or spent.dtype != torch.float64 or tuple(spent.shape) != (targets,):
        raise Broken("sent no snapshots")
    if not (torch.isfinite(spent).all() and (spent >= 0).all()):
        raise Broken("sent snapshots at a cost that is none")
    if float(spent.sum()) < cost.queries * (1 - 1e-6):
        raise Broken("sent snapshots at a lower cost than was counted")
    rungs = {str(rung) for rung in range(len(LADDER))}
    for name, images in offered.items():
        if name in ("spent", "seen"):
            continue
        if name not in rungs or images.dtype != torch.uint8 or tuple(images.shape) != (targets, *shape):
            raise Broken("sent snapshots that are none")
    return {**offered, "seen": torch.tensor([cost.gradient_steps, cost.queries])}


# --- defences --------------------------------------------------------------------------------------------------------


class _IsolatedDefense(_StandIn, Defense[Params]):
    """A defence that runs elsewhere."""

    anytime: bool = False
    takes_timesteps: bool = True

    def protect(self, ann: ImageClassifier, data: TrainingData, context: DefenseContext) -> Network:
        opened(self.server, _with_model(self.opening, ann))
        context.stopwatch.restart()
        handler = DefenseHandler(self.server, data, context)
        kept, record = save_network(ann)
        head = {
            "type": "defend",
            "network": record,
            "count": len(data),
            "timesteps": context.timesteps,
            "precision": context.precision,
            **handler.surroundings(context),
        }
        tensors = {f"network/{name}": tensor for name, tensor in kept.items()} | handler.states(context)
        answer = self._called(head, tensors, handler)
        network: Network = self.checked(lambda: self._network(answer, ann, context))
        return network

    def _network(self, answer: Message, ann: ImageClassifier, context: DefenseContext) -> Network:
        _set_state(context.generator, answer.tensors.get("generator"))
        said = read(DefenseSaid, answer.head)
        record = said.network
        _find(context, said)
        if tuple(record.image_shape) != ann.image_shape or record.classes != ann.classes:
            raise PluginError(f"{self.name}.protect returned a network for other images or classes than the ANN's")
        return built(self.name, record, below(answer.tensors, "network/"), context.device, ann.arch)


# --- small things ----------------------------------------------------------------------------------------------------


def _find(context: Context, said: Found) -> None:
    """Puts what the plugin found into the context."""
    for name, number in said.findings.items():
        context.findings[name[:1000]] = _float(number)


def _with_model(opening: Opening, network: Any) -> Opening:
    """The opening, with what the network's own code is where that is a third party's."""
    if network is None:
        return opening
    architecture = Architecture.parse(network.arch)
    if not architecture.code:
        return opening
    name, target = registry.whereabouts("model", architecture.model, architecture.code)
    files = package_of(target.partition(":")[0]) if target else [Path(name.rpartition(":")[0])]
    return opening.with_model(name, target, files)


def _set_state(generator: torch.Generator, state: Tensor | None) -> None:
    try:
        set_state(generator, state if state is not None else torch.empty(0, dtype=torch.uint8))
    except (RuntimeError, TypeError):
        raise Broken("sent a generator's state that is none") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Broken("sent a finding that is no number") from None
