"""What takes a plugin's place in the process that has the data: it runs the plugin elsewhere, and checks what comes.

A stand-in is a class like the plugin's own, made from what the plugin says of itself. Called, it is an Attack or a
Defense like any other, whose checks are the framework's; its ``run`` or ``protect`` asks the plugin's process.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
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
from leakbench.contracts.snapshots import LADDER
from leakbench.errors import LeakBenchError, PluginError, printable
from leakbench.models import Architecture
from leakbench.models.storage import load_network, save_network
from leakbench.runtime import checkpoints
from leakbench.runtime.isolation.grants import package_of
from leakbench.runtime.isolation.messages import Broken, Message
from leakbench.runtime.isolation.server import Opening, PluginServer
from leakbench.runtime.isolation.serving import error_named
from leakbench.snn import SpikingNetwork

log = logging.getLogger("leakbench")

_MOST_WARNINGS = 100
_MOST_STEPS = 100_000
"""of a network's simulation, and the largest whole number among its settings"""
_MOST_QUERIED = 1_000_000
"""images of one query"""
_THEIRS, _OURS = "plugin ", "counted "
"""before the names of a state's tensors: what the plugin gave, and what was counted here"""

M = TypeVar("M", bound=BaseModel)
Whole = Annotated[int, Field(ge=0, le=2**62)]
Text = Annotated[str, Field(max_length=1000)]
Answer = tuple[Mapping[str, Any], Mapping[str, Tensor]]


class _Said(BaseModel):
    """Base of what is read of a plugin's messages."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Parameter(_Said):
    name: Text
    described: bool


class _Member(_Said):
    name: Text
    version: int
    params: dict[str, JsonValue]


class Description(_Said):
    """What a plugin says of its class."""

    name: Text
    version: int
    cites: Annotated[str, Field(max_length=10_000)]
    doc: Annotated[str, Field(max_length=100_000)]
    presets: dict[str, dict[str, JsonValue]]
    parameters: Annotated[list[_Parameter], Field(max_length=1000)]
    leakage: Text
    needs: Annotated[int, Field(ge=0, le=3)]
    effort: Text
    ensemble: bool
    uses_public: bool
    spiking: bool
    members: Annotated[list[_Member], Field(max_length=1000)]


class Made(_Said):
    """What a plugin says of itself with parameters."""

    params: dict[str, JsonValue]
    changed: dict[str, JsonValue]
    anytime: bool


class _Raised(_Said):
    error: Text
    text: str
    at: Text
    traceback: Annotated[str, Field(max_length=30_000)]


class _Ended(_Said):
    asked: Annotated[list[Annotated[int, Field(ge=1, le=3)]], Field(max_length=3)] = []
    changed: Annotated[list[Text], Field(max_length=100)] = []


class _Attacked(_Said):
    queries: Whole
    gradient_steps: Whole
    findings: Annotated[dict[str, str], Field(max_length=10_000)]
    returned: Text


class _Network(_Said):
    arch: Text
    image_shape: Annotated[list[Whole], Field(min_length=3, max_length=3)]
    classes: Whole
    input_range: Annotated[list[float], Field(min_length=2, max_length=2)]
    spiking: dict[str, JsonValue] | None = None


class _Progressed(_Said):
    what: str
    done: int
    total: int


class _Warned(_Said):
    line: Text


class _Loop(_Said):
    name: Text
    last: bool = False


class _Shares(_Said):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    version: int
    params: dict[str, JsonValue]


def read(kind: type[M], head: Mapping[str, Any]) -> M:
    """A message's head as what it should be; Broken where it is something else."""
    try:
        return kind.model_validate(dict(head))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Broken(f"sent something else than was asked for ({printable(where)[:100]}: {first['msg']})") from None


def raise_as_said(message: Message) -> NoReturn:
    """What a plugin raised, with its traceback as a note. LeakBench's own errors are what they were."""
    said = read(_Raised, message.head)
    text = said.text.partition("\n")[0][:2000]
    error = error_named(said.error, text)
    error.where = printable(said.at)
    if said.traceback:
        error.add_note(f"In the plugin's process:\n{said.traceback}")
    raise error


class _Choices:
    """The parameters' class of a stand-in: names, and nothing that would have to be run."""

    def __init__(self, parameters: Sequence[_Parameter]) -> None:
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
        self.left_changed: list[str] = []
        """of the process's global state, by the last call"""

    @classmethod
    def making(cls, params: Mapping[str, Any]) -> Made:
        """What the plugin makes of these parameters."""
        plain = json.loads(json.dumps(dict(params), default=str))
        return asked(cls.server, cls.opening, Made, {"type": "make", "params": plain})

    def _called(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor], handler: _Handler) -> Message:
        """The plugin's last word in a call; what it raised is raised."""
        answer = self.server.ask({**head, "params": self._given}, tensors, handler)
        ended = self.checked(lambda: read(_Ended, answer.head))
        self.left_changed = list(ended.changed)
        for access in sorted(ended.asked):
            handler.asked(Access(access))
        if answer.type == "raised":
            self.checked(lambda: raise_as_said(answer))
        return answer

    def checked(self, look: Any) -> Any:
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
        body["needs"] = Access(facts.needs)
        body["members"] = tuple(
            SimpleNamespace(name=one.name, version=one.version, params=MadeParams(_as_made(one.params)))
            for one in facts.members
        )
    else:
        body["spiking"] = facts.spiking
    return type("StandIn", (bases[opening.kind],), body)


def _as_made(params: dict[str, JsonValue]) -> Made:
    return Made(params=params, changed=params, anytime=False)


# --- attacks ---------------------------------------------------------------------------------------------------------


class _RunsAttack(_StandIn):
    """The part that attacks of all kinds of leak have in common."""

    needs: ClassVar[Access]

    def _outcome(self, victim: Victim, given: Sequence[Tensor], context: AttackContext, snapshots: bool) -> Any:
        network = victim._network if victim.access == Access.WEIGHTS else None
        opened(self.server, _with_model(self.opening, network))
        context.stopwatch.restart()  # starting a process is no part of what an attack takes
        handler = _AttackHandler(self.server, victim, context)
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
        if network is not None:
            kept, head["network"] = save_network(network)
            tensors |= {f"network/{name}": tensor for name, tensor in kept.items()}
            if isinstance(network, SpikingNetwork):
                tensors["noise"] = network.noise.get_state()
        answer = self._called(head, tensors, handler)
        return self.checked(lambda: self._read(answer, victim, len(given[0]) if snapshots else None, context))

    def _read(self, answer: Message, victim: Victim, targets: int | None, context: AttackContext) -> Any:
        said = read(_Attacked, answer.head)
        if victim.access == Access.WEIGHTS:  # who has the network can ask it without anybody who counts
            context.cost.queries = said.queries
        context.cost.gradient_steps = said.gradient_steps
        for name, number in said.findings.items():
            context.findings[name[:1000]] = _float(number)
        _set_state(context.generator, answer.tensors.get("generator"))
        if targets is not None:
            offered = {
                name.removeprefix("snapshots/"): tensor
                for name, tensor in answer.tensors.items()
                if name.startswith("snapshots/")
            }
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

    def protect(
        self, ann: ImageClassifier, data: TrainingData, context: DefenseContext
    ) -> SpikingNetwork | ImageClassifier:
        opened(self.server, _with_model(self.opening, ann))
        context.stopwatch.restart()
        handler = _DefenseHandler(self.server, data, context)
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
        network: SpikingNetwork | ImageClassifier = self.checked(lambda: self._network(answer, ann, context))
        return network

    def _network(
        self, answer: Message, ann: ImageClassifier, context: DefenseContext
    ) -> SpikingNetwork | ImageClassifier:
        _set_state(context.generator, answer.tensors.get("generator"))
        said = answer.head.get("network")
        record = read(_Network, said if isinstance(said, dict) else {})
        if tuple(record.image_shape) != ann.image_shape or record.classes != ann.classes:
            raise PluginError(f"{self.name}.protect returned a network for other images or classes than the ANN's")
        _check_settings(record.spiking)
        architecture = Architecture.parse(record.arch)
        if len(architecture.rewrites) > len(set(architecture.rewrites)):
            raise Broken("sent a network that is none")
        tensors = {
            name.removeprefix("network/"): tensor
            for name, tensor in answer.tensors.items()
            if name.startswith("network/")
        }
        try:
            return load_network(tensors, record.model_dump(), context.device)
        except LeakBenchError as error:
            hint = " (in a process of its own, a defence has models that are built in, named by --model or installed)"
            raise PluginError(f"{self.name}: {error}{hint if architecture.code else ''}") from None
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise Broken(f"sent a network that is none ({type(error).__name__})") from None


def _check_settings(value: Any) -> None:
    """Broken where one of a network's settings is beyond all reason: it would keep a machine busy for weeks."""
    if isinstance(value, Mapping):
        for one in value.values():
            _check_settings(one)
    elif isinstance(value, list):
        for one in value:
            _check_settings(one)
    elif isinstance(value, int) and abs(value) > _MOST_STEPS:
        raise Broken(f"sent a network with a setting of {value}")


# --- what plugins ask for on their way -------------------------------------------------------------------------------


class _Unbuilt(Exception):
    """The plugin could not build what it wanted to share."""


class _Handler:
    """Answers the questions of one call."""

    def __init__(self, server: PluginServer, context: Context) -> None:
        self._server = server
        self._contexts = [context]
        """of the call, and of what is being built within it"""
        self._warnings = 0

    def asked(self, access: Access) -> None:
        """The plugin asked its victim for this."""

    def surroundings(self, context: Context) -> dict[str, Any]:
        """What a plugin is told of its context."""
        public = getattr(context, "public", None)
        return {
            "seed": torch.initial_seed(),  # of the fence around this call
            "device": str(context.device),
            "flips": context.flips,
            "shared": context.shared_store is not None,
            "checkpoints": context.checkpoints is not None,
            "every": checkpoints.EVERY,
            "public": public.source if public is not None else "",
        }

    def states(self, context: Context) -> dict[str, Tensor]:
        """What a plugin is handed with its context."""
        public = getattr(context, "public", None)
        generator = {"generator": context.generator.get_state()}
        return generator if public is None else {**generator, "public": public.images}

    def __call__(self, message: Message) -> Answer | None:
        try:
            return self._answer(message)
        except LeakBenchError as error:
            if isinstance(error, PluginError) and self._server.is_closed:
                raise
            return {"type": "refused", "error": type(error).__name__, "text": str(error)}, {}

    def _answer(self, message: Message) -> Answer | None:
        context = self._contexts[-1]
        match message.type:
            case "progress":
                told = read(_Progressed, message.head)
                context.progress(printable(told.what)[:200], told.done, told.total)
                return None
            case "warning":
                self._warnings += 1
                if self._warnings <= _MOST_WARNINGS:
                    log.warning("%s", printable(read(_Warned, message.head).line))
                return None
            case "save":
                self._save(read(_Loop, message.head), message.tensors, context)
                return None
            case "load":
                return self._load(read(_Loop, message.head), context)
            case "shared":
                return self._share(read(_Shares, message.head), context)
        raise Broken("asked for what it may not")

    # --- states of loops -----------------------------------------------------------------------------------------

    def counted(self, context: Context) -> dict[str, Tensor]:
        """What was counted here so far, which goes along with a plugin's state."""
        return {f"time {name}": tensor for name, tensor in context.stopwatch.state().items()}

    def recounted(self, state: Mapping[str, Tensor], context: Context) -> None:
        """Becomes what was counted when a state was kept; nothing is ever forgotten."""
        seconds = float(state["time seconds"])
        if seconds > context.stopwatch.seconds:
            context.stopwatch.restart(seconds)

    def _save(self, loop: _Loop, tensors: Mapping[str, Tensor], context: Context) -> None:
        if context.checkpoints is None:
            raise Broken("asked for what it may not")
        state = {f"{_THEIRS}{name}": tensor for name, tensor in tensors.items()}
        state |= {f"{_OURS}{name}": tensor for name, tensor in self.counted(context).items()}
        context.checkpoints(f"isolated {loop.name}").save(lambda: state, loop.last)

    def _load(self, loop: _Loop, context: Context) -> Answer:
        state = context.checkpoints(f"isolated {loop.name}").load() if context.checkpoints is not None else None
        if state is None:
            return {"type": "state", "found": False}, {}
        self.recounted(_named(state, _OURS), context)
        return {"type": "state", "found": True}, _named(state, _THEIRS)

    # --- what is shared ------------------------------------------------------------------------------------------

    def _share(self, shares: _Shares, context: Context) -> Answer:
        if context.shared_store is None or not shares.name.isprintable():
            raise Broken("asked for what it may not")

        def build(given: Context) -> dict[str, Tensor]:
            self.may_build()
            self._contexts.append(given)
            try:
                head = {"type": "build", **self.surroundings(given)}
                answer = self._server.ask(head, self.states(given), self, last=("built", "unbuilt"))
            finally:
                self._contexts.pop()
            if answer.type == "unbuilt":
                raise _Unbuilt
            self.may_build()
            return dict(answer.tensors)

        try:
            return {"type": "tensors"}, context.shared_store(shares.name, shares.version, shares.params, build)
        except _Unbuilt:
            return {"type": "unbuilt"}, {}

    def may_build(self) -> None:
        """PluginError where what a plugin shares could hold what it must not."""


class _AttackHandler(_Handler):
    def __init__(self, server: PluginServer, victim: Victim, context: AttackContext) -> None:
        super().__init__(server, context)
        self._victim, self._cost = victim, context.cost

    def asked(self, access: Access) -> None:
        self._victim._require(access)

    def _answer(self, message: Message) -> Answer | None:
        if message.type not in ("scores", "labels"):
            return super()._answer(message)
        images = message.tensors.get("images")
        if images is None:
            raise Broken("asked about no images")
        if tuple(images.shape[1:]) != self._victim.image_shape or not images.is_floating_point():
            raise PluginError(f"a victim is asked about float images of {self._victim.image_shape}")
        if not 0 <= len(images) <= _MOST_QUERIED:
            raise PluginError(f"a victim is asked about {_MOST_QUERIED} images at a time at most")
        device = self._contexts[0].device
        answers = self._victim.scores if message.type == "scores" else self._victim.labels
        return {"type": "answer"}, {"answer": answers(images.to(device))}

    def counted(self, context: Context) -> dict[str, Tensor]:
        noise = {"noise": self._victim.noise.get_state()} if self._victim.noise is not None else {}
        return {**super().counted(context), **noise, "queries": torch.tensor(self._cost.queries)}

    def recounted(self, state: Mapping[str, Tensor], context: Context) -> None:
        super().recounted(state, context)
        queries = int(state["queries"])
        if queries >= self._cost.queries:
            self._cost.queries = queries
            if self._victim.noise is not None:
                self._victim.noise.set_state(state["noise"])


class _DefenseHandler(_Handler):
    def __init__(self, server: PluginServer, data: TrainingData, context: DefenseContext) -> None:
        super().__init__(server, context)
        self._data = data

    def _answer(self, message: Message) -> Answer | None:
        if message.type != "take":
            return super()._answer(message)
        index = message.tensors.get("index")
        if index is None or index.dtype != torch.int64 or index.dim() != 1:
            raise Broken("asked for images by what is no index")
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self._data)):
            raise Broken("asked for images that there are not")
        images, labels = self._data.pixels(index)
        return {"type": "images"}, {"images": images, "labels": labels}

    def may_build(self) -> None:
        if self._data.reads:
            raise PluginError(
                "what defences share is made of the network alone, and this one has read private images: build it first"
            )

    def counted(self, context: Context) -> dict[str, Tensor]:
        return {**super().counted(context), **self._data.state()}

    def recounted(self, state: Mapping[str, Tensor], context: Context) -> None:
        super().recounted(state, context)
        self._data.restore(state)


# --- small things ----------------------------------------------------------------------------------------------------


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


def _named(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _set_state(generator: torch.Generator, state: Tensor | None) -> None:
    try:
        generator.set_state(state if state is not None else torch.empty(0, dtype=torch.uint8))
    except (RuntimeError, TypeError):
        raise Broken("sent a generator's state that is none") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Broken("sent a finding that is no number") from None
