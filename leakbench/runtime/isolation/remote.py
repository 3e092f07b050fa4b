"""What a plugin is handed in its own process, in the place of what is elsewhere: it asks through the pipe.

None of this protects anything: it is in the plugin's hands. What is asked for is checked and counted at the other end.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from leakbench.contracts import Access, Checkpoint, Cost, ModuleNetwork, Reference, State, TrainingData, Victim
from leakbench.models.storage import load_network
from leakbench.runtime.isolation.messages import Message, below
from leakbench.snn import SpikingNetwork

Ask = Callable[..., Message]


class WatchedVictim(Victim):
    """The victim itself; remembers what it was asked for."""

    def __init__(self, network: Any, access: Access, cost: Cost, asked: set[Access]) -> None:
        super().__init__(network, access, cost)
        self._asked = asked

    def restricted_to(self, access: Access, cost: Cost) -> Victim:
        return WatchedVictim(self._network, min(self.access, access), cost, self._asked)

    def _require(self, access: Access) -> None:
        self._asked.add(access)
        super()._require(access)


class Opening:
    """A reference network that is open elsewhere, for as long as this is held."""

    def __init__(self, number: int, closed: list[int]) -> None:
        self.number = number
        # told with the next question: the end of this may come in the midst of another message
        weakref.finalize(self, closed.append, number)


class RemoteVictim(Victim):
    """A victim, or a reference network, that is elsewhere and answers."""

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        access: Access,
        cost: Cost,
        asked: set[Access],
        ask: Ask,
        opening: Opening | None = None,
    ) -> None:
        self.access, self.cost, self._opening = access, cost, opening
        self.image_shape = (image_shape[0], image_shape[1], image_shape[2])
        self.classes = classes
        self._asked, self._ask = asked, ask

    def restricted_to(self, access: Access, cost: Cost) -> Victim:
        access = min(self.access, access)
        return RemoteVictim(self.image_shape, self.classes, access, cost, self._asked, self._ask, self._opening)

    @property
    def noise(self) -> torch.Generator | None:
        return None

    def _require(self, access: Access) -> None:
        self._asked.add(access)
        super()._require(access)

    def require_answers(self, needs: Access, shown: Tensor | None = None) -> None:
        """Asked before the attack began."""

    def scores(self, images: Tensor) -> Tensor:
        self._require(Access.SCORES)
        return self._query("scores", images)

    def labels(self, images: Tensor) -> Tensor:
        self._require(Access.LABELS)
        return self._query("labels", images)

    def _query(self, what: str, images: Tensor) -> Tensor:
        self.cost.queries += len(images)
        opening = None if self._opening is None else self._opening.number
        return self._ask({"type": what, "opening": opening}, {"images": images}).tensors["answer"].to(images.device)


class RemoteReferences:
    """Reference networks that are elsewhere: those of WEIGHTS come when they are opened, others answer."""

    def __init__(
        self, image_shape: Sequence[int], classes: int, access: Access, device: torch.device, ask: Ask
    ) -> None:
        self._image_shape, self._classes, self._access = image_shape, classes, access
        self._device, self._ask = device, ask
        self._closed: list[int] = []

    def reference(self, number: int, members: Tensor) -> Reference:
        return Reference(members, lambda: self._opened(number))

    def _opened(self, number: int) -> Victim:
        closed = self._closed.copy()
        del self._closed[: len(closed)]
        answer = self._ask({"type": "open", "reference": number, "closed": closed})
        if self._access < Access.WEIGHTS:
            opening = Opening(answer.head["opening"], self._closed)
            return RemoteVictim(self._image_shape, self._classes, self._access, Cost(), set(), self._ask, opening)
        network = load_network(below(answer.tensors, "network/"), answer.head["network"], self._device)
        if "noise" in answer.tensors:
            assert isinstance(network, SpikingNetwork | ModuleNetwork)
            network.noise.set_state(answer.tensors["noise"])
        return Victim(network, self._access)


class RemoteData(TrainingData):
    """Private images that are elsewhere, and come when they are asked for."""

    def __init__(self, count: int, ask: Ask) -> None:
        self._count, self._ask = count, ask
        self._seen = torch.zeros(count, dtype=torch.bool)
        self._handed = 0

    def __len__(self) -> int:
        return self._count

    def pixels(self, index: Tensor) -> tuple[Tensor, Tensor]:
        picked = torch.arange(self._count)[index]  # IndexError, as elsewhere
        self._seen[picked] = True
        self._handed += len(picked)
        answer = self._ask({"type": "take"}, {"index": picked})
        return answer.tensors["images"], answer.tensors["labels"]


class RemoteCheckpoints:
    """States of loops, kept at the other end: those that are done at once, others now and then."""

    def __init__(self, ask: Ask, tell: Callable[..., None], every: float) -> None:
        self._ask, self._tell, self._every = ask, tell, every
        self._saved = time.monotonic()

    def checkpoint(self, name: str) -> Checkpoint:
        return _Kept(self, name)

    def load(self, name: str) -> dict[str, Tensor] | None:
        answer = self._ask({"type": "load", "name": name})
        return dict(answer.tensors) if answer.head["found"] else None

    def save(self, name: str, state: Callable[[], State], last: bool) -> None:
        due = time.monotonic() - self._saved >= self._every
        if last or due:
            self._tell({"type": "save", "name": name, "last": last}, state())
        if due:
            self._saved = time.monotonic()


class _Kept(Checkpoint):
    def __init__(self, kept: RemoteCheckpoints, name: str) -> None:
        self._kept, self._name = kept, name

    def load(self) -> dict[str, Tensor] | None:
        return self._kept.load(self._name)

    def save(self, state: Callable[[], State], last: bool = False) -> None:
        self._kept.save(self._name, state, last)
