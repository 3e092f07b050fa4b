"""Answers to what a plugin asks for while its call is under way: victims, private images, states, what is shared."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leakbench.contracts import Access, AttackContext, Context, DefenseContext, TrainingData, Victim
from leakbench.contracts.generators import set_state
from leakbench.errors import LeakBenchError, NotApplicable, PluginError, printable
from leakbench.models.storage import save_network
from leakbench.runtime import checkpoints
from leakbench.runtime.isolation.messages import Broken, Message
from leakbench.runtime.isolation.said import Asks, LoopNamed, Opens, Progressed, Shares, Warned, read
from leakbench.runtime.isolation.server import PluginServer

log = logging.getLogger("leakbench")

_MOST_WARNINGS = 100
_MOST_QUERIED = 1 << 23
"""pixels of one query, whose simulation takes some hundred bytes each"""
_MOST_KEPT, _MOST_LOOPS = 1 << 31, 10_000
"""bytes of all states of a call's loops, which wait in memory until they are written, and how many loops"""
_MOST_OPEN = 256
"""reference networks that a call has open"""
_DIGEST = 32
"""bytes"""
_THEIRS, _OURS = "plugin ", "counted "
"""before the names of a state's tensors: what the plugin gave, and what was counted here"""

Answer = tuple[Mapping[str, Any], Mapping[str, Tensor]]


class _Unbuilt(Exception):
    """The plugin could not build what it wanted to share."""


class Handler:
    """Answers the questions of one call."""

    def __init__(self, server: PluginServer, context: Context) -> None:
        self._server = server
        self._contexts = [context]
        """of the call, and of what is being built within it"""
        self._warnings = 0
        self._kept: dict[str, int] = {}
        """loop -> bytes of its state"""

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
                told = read(Progressed, message.head)
                context.progress(printable(told.what)[:200], told.done, told.total)
                return None
            case "warning":
                self._warnings += 1
                if self._warnings <= _MOST_WARNINGS:
                    log.warning("%s", printable(read(Warned, message.head).line))
                return None
            case "save":
                self._save(read(LoopNamed, message.head), message.tensors, context)
                return None
            case "load":
                return self._load(read(LoopNamed, message.head), context)
            case "shared":
                return self._share(read(Shares, message.head), context)
        raise Broken("asked for what it may not")

    # --- states of loops -----------------------------------------------------------------------------------------

    def counted(self, context: Context, loop: str) -> dict[str, Tensor]:  # noqa: ARG002
        """What was counted here so far, which goes along with the state of a plugin's loop."""
        return {f"time {name}": tensor for name, tensor in context.stopwatch.state().items()}

    def recounted(self, state: Mapping[str, Tensor], context: Context, loop: str) -> None:  # noqa: ARG002
        """Becomes what was counted when a loop's state was kept; nothing is ever forgotten."""
        seconds = float(state["time seconds"])
        if seconds > context.stopwatch.seconds:
            context.stopwatch.restart(seconds)

    def _save(self, loop: LoopNamed, tensors: Mapping[str, Tensor], context: Context) -> None:
        if context.checkpoints is None:
            raise Broken("asked for what it may not")
        self._kept[loop.name] = sum(tensor.nbytes for tensor in tensors.values())
        if len(self._kept) > _MOST_LOOPS or sum(self._kept.values()) > _MOST_KEPT:
            raise Broken(f"kept too much: {_MOST_KEPT} bytes of {_MOST_LOOPS} loops at most")
        state = {f"{_THEIRS}{name}": tensor for name, tensor in tensors.items()}
        state |= {f"{_OURS}{name}": tensor for name, tensor in self.counted(context, loop.name).items()}
        context.checkpoints(f"isolated {loop.name}").save(lambda: state, loop.last)

    def _load(self, loop: LoopNamed, context: Context) -> Answer:
        state = context.checkpoints(f"isolated {loop.name}").load() if context.checkpoints is not None else None
        if state is None:
            return {"type": "state", "found": False}, {}
        self.recounted(_named(state, _OURS), context, loop.name)
        return {"type": "state", "found": True}, _named(state, _THEIRS)

    # --- what is shared ------------------------------------------------------------------------------------------

    def _share(self, shares: Shares, context: Context) -> Answer:
        if context.shared_store is None:
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


class AttackHandler(Handler):
    def __init__(self, server: PluginServer, victim: Victim, context: AttackContext, members: bool) -> None:
        super().__init__(server, context)
        self._victim, self._cost, self._members = victim, context.cost, members
        self._questions = bytes(_DIGEST)
        """digest of all that was asked so far"""
        self._begun: dict[str, tuple[bytes, int]] = {}
        """loop -> the same and the number of queries, when it asked for its state"""
        self._references = context.references
        self._open: dict[int, Victim] = {}
        self._opened = 0

    def may_build(self) -> None:
        """What other attacks get, who may know less, must not hold what this one knows of victim or candidates."""
        if self._victim.access == Access.WEIGHTS or self._members:
            raise PluginError(
                "isolated, attacks with WEIGHTS or on members share nothing: it could hold what they know"
            )
        if self._cost.queries:
            raise PluginError(
                "what attacks share is made of public images alone, and this one has asked the victim: build it first"
            )

    def asked(self, access: Access) -> None:
        with contextlib.suppress(NotApplicable):  # which the plugin was told, too
            self._victim._require(access)

    def _answer(self, message: Message) -> Answer | None:
        if message.type == "open":
            return self._open_reference(read(Opens, message.head))
        if message.type not in ("scores", "labels"):
            return super()._answer(message)
        opening = read(Asks, message.head).opening
        if opening is not None and opening not in self._open:
            raise Broken("asked a reference that is not open")
        victim = self._victim if opening is None else self._open[opening]
        images = message.tensors.get("images")
        if images is None:
            raise Broken("asked about no images")
        if tuple(images.shape[1:]) != self._victim.image_shape or not images.is_floating_point():
            raise PluginError(f"a victim is asked about float images of {self._victim.image_shape}")
        if images.numel() > _MOST_QUERIED:
            most = _MOST_QUERIED // max(1, images[0].numel())
            raise PluginError(f"a victim is asked about {most} such images at a time at most")
        if opening is None:  # references answer an attack that goes on as they answer one that begins
            said = f"{message.type} {tuple(images.shape)} {images.dtype}".encode()
            content = images.contiguous().flatten().view(torch.uint8).numpy()
            self._asked(said + content.tobytes())
        device = self._contexts[0].device
        answers = victim.scores if message.type == "scores" else victim.labels
        return {"type": "answer"}, {"answer": answers(images.to(device))}

    def _open_reference(self, wanted: Opens) -> Answer:
        for number in wanted.closed:
            self._open.pop(number, None)
        if wanted.reference >= len(self._references):
            raise Broken("asked for a reference that there is not")
        if len(self._open) >= _MOST_OPEN:
            raise PluginError(f"an isolated attack has {_MOST_OPEN} reference networks open at most: let go of some")
        victim = self._references[wanted.reference].victim()
        if victim.access == Access.WEIGHTS:
            kept, record = save_network(victim.network)
            noise = {} if victim.noise is None else {"noise": victim.noise.get_state()}
            return {"type": "opened", "network": record}, {f"network/{k}": v for k, v in kept.items()} | noise
        self._opened += 1
        self._open[self._opened] = victim
        return {"type": "opened", "opening": self._opened}, {}

    def _asked(self, what: bytes) -> None:
        self._questions = hashlib.blake2b(self._questions + what, digest_size=_DIGEST).digest()

    def _load(self, loop: LoopNamed, context: Context) -> Answer:
        self._begun[loop.name] = self._questions, self._cost.queries
        return super()._load(loop, context)

    def counted(self, context: Context, loop: str) -> dict[str, Tensor]:
        noise = {"noise": self._victim.noise.get_state()} if self._victim.noise is not None else {}
        begun, before = self._begun.get(loop, (self._questions, self._cost.queries))
        digests = {"begun": begun, "questions": self._questions}
        asked = {name: torch.frombuffer(bytearray(digest), dtype=torch.uint8) for name, digest in digests.items()}
        queries = {"before": torch.tensor(before), "queries": torch.tensor(self._cost.queries)}
        return {**super().counted(context, loop), **noise, **asked, **queries}

    def recounted(self, state: Mapping[str, Tensor], context: Context, loop: str) -> None:
        """What was asked since the loop began counts, or all, where it began after other questions than today's.

        The answers to both are known then.
        """
        super().recounted(state, context, loop)
        questions, queries = bytes(state["questions"].numpy()), int(state["queries"])
        if bytes(state["begun"].numpy()) != self._questions:
            self._cost.queries += queries
            self._asked(questions)
            return
        self._cost.queries += queries - int(state["before"])
        self._questions = questions
        if self._victim.noise is not None:
            set_state(self._victim.noise, state["noise"])


class DefenseHandler(Handler):
    def __init__(self, server: PluginServer, data: TrainingData, context: DefenseContext) -> None:
        super().__init__(server, context)
        self._data = data

    def _answer(self, message: Message) -> Answer | None:
        if message.type != "take":
            return super()._answer(message)
        index = message.tensors.get("index")
        if index is None or index.dtype != torch.int64 or index.dim() != 1:
            raise Broken("asked for images by what is no index")
        if len(index) > len(self._data):
            raise PluginError(f"of {len(self._data)} images as many are handed out at a time at most")
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self._data)):
            raise Broken("asked for images that there are not")
        images, labels = self._data.pixels(index)
        return {"type": "images"}, {"images": images, "labels": labels}

    def may_build(self) -> None:
        if self._data.reads:
            raise PluginError(
                "what defences share is made of the network alone, and this one has read private images: build it first"
            )

    def counted(self, context: Context, loop: str) -> dict[str, Tensor]:
        return {**super().counted(context, loop), **self._data.state()}

    def recounted(self, state: Mapping[str, Tensor], context: Context, loop: str) -> None:
        super().recounted(state, context, loop)
        self._data.restore(state)


def _named(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
