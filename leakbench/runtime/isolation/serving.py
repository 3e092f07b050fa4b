"""The end of the pipes in a plugin's own process: imports the plugin and does what it is asked for.

What is here is in the plugin's hands, and protects nothing: it only has the framework's objects look as they do
elsewhere. What must hold is checked at the other end (``server``, ``stand_in``) and by the kernel.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from leakbench import registry
from leakbench.contracts import (
    Access,
    AttackContext,
    BaseAttack,
    Context,
    Cost,
    Defense,
    DefenseContext,
    ImageClassifier,
    InputRange,
    LabeledImages,
    ModuleNetwork,
    Plugin,
    PublicImages,
    SharedBuild,
    Victim,
)
from leakbench.contracts.snapshots import Snapshots
from leakbench.errors import described, one_line, traceback_text
from leakbench.models.storage import build_ann, check_kept, load_network, save_network
from leakbench.paths import remove_all
from leakbench.runtime.fence import fenced, raised_at, watched
from leakbench.runtime.isolation.confinement import confine, end_with_parent
from leakbench.runtime.isolation.messages import COMPUTE, HEADER, Message, below, check_sizes, decode, encode
from leakbench.runtime.isolation.remote import (
    RemoteCheckpoints,
    RemoteData,
    RemoteReferences,
    RemoteVictim,
    WatchedVictim,
)
from leakbench.runtime.isolation.said import EQUIPMENT, ERRORS, error_named
from leakbench.runtime.process import fixed_threads, tune_process
from leakbench.snn import SpikingConfig, SpikingNetwork

_PROGRESS_EVERY = 0.1  # seconds

C = TypeVar("C", bound=Context)


# --- the warm process ------------------------------------------------------------------------------------------------


def serve(control: socket.socket, facts: Mapping[str, Any]) -> NoReturn:
    """The life of the warm process: a copy for every packet that brings three pipes, until nobody is there any more."""
    end_with_parent(int(facts["parent"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: who started this process ends it
    folder = Path(facts["folder"])
    tune_process()
    copy, computes = 0, False

    def end_copy(_signal: int, _frame: FrameType | None) -> None:
        if copy:
            os.kill(copy, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end_copy)
    control.sendall(b"ready")
    while True:
        packet, pipes, _, _ = socket.recv_fds(control, 100, 3)
        if not packet:
            os._exit(0)
        _renew(folder / "home")
        if packet == COMPUTE and not computes:
            _warm_up()
            computes = True
        warm, copy = os.getpid(), os.fork()
        if copy == 0:
            _live(warm, folder, pipes, computes)
        for pipe in pipes:
            os.close(pipe)
        os.waitid(os.P_PID, copy, os.WEXITED | os.WNOWAIT)  # it keeps its number until nobody can mean to end it
        ended, copy = copy, 0
        control.sendall(str(os.waitpid(ended, 0)[1]).encode())


def _warm_up() -> None:
    """Loads what is loaded by the first network and the first optimiser: copies would do so again and again."""
    # of 16 x 16 pixels, which the kernels of convolutions by tiles are used from
    ann = build_ann("resnet20", (1, 16, 16), 2, InputRange(0.0, 1.0), torch.Generator().manual_seed(0))
    network = SpikingNetwork.from_ann(ann, SpikingConfig(2))
    for layer in network.neurons:
        layer.threshold.fill_(0.1)
    images = torch.full((2, 1, 16, 16), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([images])
    images.grad = torch.zeros_like(images)
    if not torch.cuda.is_available():  # whose threads would not be there in a copy
        (images.grad,) = torch.autograd.grad(network(images, seed=0).sum(), images)
    optimizer.step()
    del ann, network, images, optimizer
    gc.collect()  # no copy finds them


def _renew(folder: Path) -> None:
    """An empty folder, whatever a plugin left there."""
    with contextlib.suppress(OSError):
        remove_all(folder)
        folder.rename(folder.with_name(f"{folder.name}-{time.monotonic_ns()}"))  # what can't be removed
    folder.mkdir(mode=0o700)


def _take_kernels(home: Path) -> None:
    """Kernels that are compiled from now on are kept in ``home``, where those that others compiled are copied to."""
    import numba

    from leakbench.snn.engine import kernels

    numba.config.CACHE_DIR = str(home / "kernels")
    for kernel in vars(kernels).values():
        if isinstance(kernel, numba.core.dispatcher.Dispatcher):
            kernel.enable_caching()
    here = Path(kernels.poisson.stats.cache_path)
    here.mkdir(parents=True, exist_ok=True)
    compiled = Path(kernels.__file__).parent / "__pycache__"
    for file in (*compiled.glob("*.nbi"), *compiled.glob("*.nbc")):
        with contextlib.suppress(OSError):  # another run replaces it
            (here / file.name).write_bytes(file.read_bytes())


def _live(warm: int, folder: Path, pipes: Sequence[int], computes: bool) -> NoReturn:
    """The copy's life: whatever happens in it, it does not go on as the warm process."""
    try:
        end_with_parent(warm)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        requests, answers, prints = pipes
        for number, pipe in enumerate((os.open(os.devnull, os.O_RDONLY), prints, prints)):
            os.dup2(pipe, number)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # else what is printed is shown late, or never
        for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:  # noqa: PTH112, PTH208
            if int(name) > 2 and int(name) not in (requests, answers):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        facts = json.loads((folder / "facts.json").read_bytes())
        os.chdir(facts["home"])
        os.environ["HOME"] = os.environ["TMPDIR"] = facts["home"]
        tempfile.tempdir = None
        torch.set_flush_denormal(facts["flushes"])
        confine([(path, purpose) for path, purpose in facts["grants"]])
        if computes:
            _take_kernels(Path(facts["home"]))
        with fixed_threads(1):
            _Call(requests, answers).serve(facts)
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(1)


# --- one call --------------------------------------------------------------------------------------------------------


class _Call(logging.Handler):
    """Requests, one after the other, until the pipe is closed; warnings of LeakBench go along."""

    def __init__(self, requests: int, answers: int) -> None:
        super().__init__(logging.WARNING)
        self._requests, self._answers = os.fdopen(requests, "rb"), os.fdopen(answers, "wb")
        self._asked: set[Access] = set()
        self._changed: list[str] = []
        self._plugin: Any = None
        logging.getLogger("leakbench").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.tell({"type": "warning", "line": record.getMessage()[:1000]})

    def tell(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        content = encode(head, tensors)
        check_sizes(*HEADER.unpack_from(content))  # said here, where the plugin's author sees what was too large
        self._answers.write(content)
        self._answers.flush()

    def hear(self) -> Message | None:
        """None where nobody asks any more."""
        header = self._requests.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        text, body = HEADER.unpack(header)
        return decode(self._requests.read(text), self._requests.read(body))

    def ask(self, head: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Message:
        """The answer to a question; what is raised at the other end is raised here."""
        self.tell(head, tensors)
        answer = self.hear()
        if answer is None:
            os._exit(0)
        if answer.type == "refused":
            raise error_named(str(answer.head["error"]), str(answer.head["text"]))
        return answer

    def serve(self, facts: Mapping[str, Any]) -> None:
        self._answered(lambda: self._load(facts))
        while (request := self.hear()) is not None:
            self._answered(lambda request=request: self._perform(request))  # type: ignore[misc]
        os._exit(0)

    def _answered(self, perform: Callable[[], tuple[Mapping[str, Any], Mapping[str, Tensor]]]) -> None:
        self._asked, self._changed = set(), []
        try:
            try:
                head, tensors = perform()
            finally:  # the last line may have no end
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
            self.tell({"type": "done", "asked": self._seen(), "changed": self._changed, **head}, tensors)
        except Exception as error:
            ours = type(error).__name__ if type(error) in ERRORS.values() else ""
            self.tell({
                "type": "raised", "error": ours, "text": one_line(error) if ours else described(error),
                "at": raised_at(error, self._plugin) if self._plugin is not None else "", "asked": self._seen(),
                "traceback": traceback_text(), "changed": self._changed,
            })  # fmt: skip

    def _seen(self) -> list[int]:
        return sorted(int(access) for access in self._asked)

    def _load(self, facts: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        known = [("model", name, target, "registered") for name, target in facts["models"]]
        for kind, name, target, origin in (*known, (facts["kind"], facts["name"], facts["target"], facts["origin"])):
            if target:
                registry.register(kind, name, target, origin)
            with fenced(name, 0):
                loaded = registry.load(kind, name)
        self._plugin = loaded
        return {}, {}

    def _perform(self, request: Message) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        if request.type == "describe":
            return description(self._plugin), {}
        with fenced(self._plugin.name, 0):
            plugin = self._plugin(**request.head["params"])
        if request.type == "make":
            return made(plugin), {}
        run = self._attack if request.type == "attack" else self._defend
        with fenced(self._plugin.name, int(request.head["seed"])), watched() as changed:
            try:
                return run(plugin, request.head, request.tensors)
            finally:
                self._changed = changed

    # --- attacks -----------------------------------------------------------------------------------------------------

    def _attack(
        self, plugin: BaseAttack[Any], head: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        context = self._context(AttackContext, head, tensors)
        context.cost = Cost()
        access, shape = Access(head["access"]), tuple(head["image_shape"])
        victim: Victim
        if access == Access.WEIGHTS:
            network = load_network(below(tensors, "network/"), head["network"], context.device)
            if "noise" in tensors:
                assert isinstance(network, SpikingNetwork | ModuleNetwork)
                network.noise.set_state(tensors["noise"])
            victim = WatchedVictim(network, access, context.cost, self._asked)
        else:
            victim = RemoteVictim(shape, head["classes"], access, context.cost, self._asked, self.ask)
        context.victim_noise = victim.noise
        if "references" in tensors:
            references = RemoteReferences(shape, head["classes"], access, context.device, self.ask)
            members = enumerate(tensors["references"])
            context.references = tuple(references.reference(number, each) for number, each in members)
        if population := below(tensors, "population/"):
            context.population = LabeledImages(**population)
        context.synthetic = tensors.get("synthetic")
        given = [tensors[f"given/{number}"].to(context.device) for number in range(head["given"])]
        if head["snapshots"]:
            context.snapshots = Snapshots(context.cost, len(given[0]), shape)
        offered = context.snapshots.changes()
        context.stopwatch.restart()
        outcome = plugin.run(victim, *given, context)  # type: ignore[attr-defined]
        context.snapshots.spent  # noqa: B018 - counts what was spent since the last were offered
        spent = {f"snapshots/{name}": value for name, value in offered.state().items()}
        answer: dict[str, Any] = {
            "queries": context.cost.queries,
            "gradient_steps": context.cost.gradient_steps,
            "findings": _found(context),
            "returned": type(outcome).__name__,
        }
        kept = {"generator": context.generator.get_state(), **spent}
        if context.student is not None:
            student, answer["student"] = save_network(context.student)
            kept |= {f"student/{name}": tensor for name, tensor in student.items()}
        return answer, {**kept, "outcome": outcome} if isinstance(outcome, Tensor) else kept

    # --- defences ----------------------------------------------------------------------------------------------------

    def _defend(
        self, plugin: Defense[Any], head: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        context = self._context(DefenseContext, head, tensors)
        context.timesteps, context.precision = head["timesteps"], head["precision"]
        ann = load_network(below(tensors, "network/"), head["network"], context.device)
        assert isinstance(ann, ImageClassifier)
        network = plugin(ann, RemoteData(head["count"], self.ask), context)
        kept, record = save_network(network)
        check_kept(plugin.name, network, load_network(kept, record, context.device))
        named = {f"network/{name}": tensor for name, tensor in kept.items()}
        return {"network": record, "findings": _found(context)}, {**named, "generator": context.generator.get_state()}

    # --- contexts ----------------------------------------------------------------------------------------------------

    def _context(self, kind: type[C], head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> C:
        """As the framework hands it over elsewhere."""
        generator = torch.Generator()
        generator.set_state(tensors["generator"])
        context = kind(generator, torch.device(head["device"]), self._progress, flips=head["flips"])
        if isinstance(context, AttackContext) and "public" in tensors:
            context.public = PublicImages(tensors["public"], head["public"])
        if head["shared"]:
            context.shared_store = self._shared(kind)
        if head["checkpoints"]:
            context.checkpoints = RemoteCheckpoints(self.ask, self.tell, head["every"]).checkpoint
        return context

    def _progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - getattr(self, "_shown", 0.0) > _PROGRESS_EVERY:
            self._shown = now
            self.tell({"type": "progress", "what": str(what), "done": int(done), "total": int(total)})

    def _shared(self, kind: type[Context]) -> Callable[[str, int, Mapping[str, Any], SharedBuild], dict[str, Tensor]]:
        def shared(name: str, version: int, params: Mapping[str, Any], build: SharedBuild) -> dict[str, Tensor]:
            answer = self.ask({"type": "shared", "name": name, "version": version, "params": dict(params)})
            while answer.type == "build":
                context = self._context(kind, answer.head, answer.tensors)
                try:
                    with fenced(f"shared {name}", int(answer.head["seed"])):
                        tensors = build(context)
                except Exception as error:
                    self.ask({"type": "unbuilt"})
                    raise error
                answer = self.ask({"type": "built"}, tensors)
            return dict(answer.tensors)

        return shared


# --- what a plugin says of itself ------------------------------------------------------------------------------------


def _found(context: Context) -> dict[str, str]:
    """What the plugin measured on its way."""
    return {str(name): repr(float(value)) for name, value in context.findings.items()}


def description(plugin: Any) -> dict[str, Any]:
    """Of a class: what plans and records need to know of it."""
    fields = plugin.Params.model_fields.items()
    return {
        "name": plugin.name,
        "version": plugin.version,
        "cites": plugin.cites,
        "doc": plugin.__doc__ or "",
        "presets": {preset: dict(values) for preset, values in plugin.presets.items()},
        "parameters": [{"name": name, "described": bool(field.description)} for name, field in fields],
        "leakage": getattr(plugin, "leakage", ""),
        "needs": int(getattr(plugin, "needs", 0)),
        "effort": str(getattr(plugin, "effort", "")),
        "ensemble": bool(getattr(plugin, "ensemble", False)),
        "uses_public": bool(getattr(plugin, "uses_public", False)),
        **{name: bool(getattr(plugin, name, False)) for name in EQUIPMENT},
        "asks_of": str(getattr(plugin, "asks_of", "")),
        "spiking": bool(getattr(plugin, "spiking", True)),
        "members": [
            {"name": member.name, "version": member.version, "params": member.params.model_dump(mode="json")}
            for member in getattr(plugin, "members", ())
        ],
    }


def made(plugin: Plugin[Any]) -> dict[str, Any]:
    """Of a plugin with parameters: all of them, those that are not the defaults, and what follows from them."""
    params = plugin.params
    return {
        "params": params.model_dump(mode="json"),
        "changed": params.model_dump(mode="json", exclude_defaults=True),
        "anytime": bool(getattr(plugin, "anytime", False)),
        "takes_timesteps": bool(getattr(plugin, "takes_timesteps", True)),
    }
