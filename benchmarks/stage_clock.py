"""A clock that watches a run from outside: functions are exchanged for ones that look at it.

The library knows nothing of it. Each second counts for the innermost stage that it falls into, and a simulation's for
its kind as well: forward without and with a gradient, backward, and what is simulated while thresholds are sought.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OTHER = "everything else"
KINDS = ("forward without gradient", "forward with gradient", "backward", "threshold search")


@dataclass
class Spent:
    """Seconds, the calls that they were spent in, and the images of these calls."""

    seconds: float = 0.0
    calls: int = 0
    images: int = 0


class Clock:
    """Seconds of each stage without those of the stages within it, and of spiking simulation in each stage."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.stages: dict[str, float] = {OTHER: 0.0}
        self.spiking: dict[str, dict[str, Spent]] = {}
        """stage -> kind -> what was spent"""
        self._stack = [OTHER]
        self._start = self._last = now()

    def _turn(self) -> None:
        now = self.now()
        self.stages[self._stack[-1]] = self.stages.get(self._stack[-1], 0.0) + now - self._last
        self._last = now

    @property
    def current(self) -> str:
        """The innermost stage."""
        return self._stack[-1]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Whatever happens inside counts for this stage."""
        self._turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def simulated(self, kind: str, seconds: float, images: int = 0) -> None:
        """Adds one call to the stage at hand; its seconds are the stage's too."""
        spent = self.spiking.setdefault(self._stack[-1], {}).setdefault(kind, Spent())
        spent.seconds += seconds
        spent.calls += 1
        spent.images += images

    def stop(self) -> float:
        """Seconds in all."""
        self._turn()
        return self._last - self._start


def exchange(name: str, modules: Sequence[Any], around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts ``around(function)`` in the place of the function ``name`` in modules (or classes) that have it.

    Modules take functions by name from each other, so each has to be told. What an older or newer checkout hasn't got
    stays unwatched, and its time with the stage around it.
    """
    for module in modules:
        if hasattr(module, name):
            setattr(module, name, around(getattr(module, name)))


def as_stage(clock: Clock, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Every call is this stage."""

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with clock.stage(name):
                return function(*args, **kwargs)

        return timed

    return around


def as_part(clock: Clock, run: Callable[..., Any]) -> Callable[..., Any]:
    """An attack that an ensemble runs: ``attack auto-v1: inversion``."""

    @functools.wraps(run)
    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        whole = clock.current.partition(":")[0]
        if whole in (f"attack {self.name}", OTHER):
            return run(self, *args, **kwargs)
        with clock.stage(f"{whole}: {self.name}"):
            return run(self, *args, **kwargs)

    return timed


# What the store's stages are called here; the plugin's name is added to those that end in a space.
ARTIFACTS = {
    "ann": "accuracy of the ANN",  # what is left of it without the training
    "judge": "judges' training",
    "ensemble": "metrics: judges",
    "features": "metrics: judges",
    "predictions": "metrics: judges",
    "image-features": "metrics: others",
    "metric": "metrics: others",  # without KES
    "uap": "metrics: fooling (UAP)",
    "uap-brackets": "metrics: fooling (UAP)",
    "utility": "accuracy of the SNN",
    "shared-synthetic": "image synthesis",
    "victim": "rest of building ",
    "attack": "attack ",
}
CONTROL_VICTIMS = ("ann", "random")


def stage_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """The stage that builds an artifact."""
    if kind == "anchor":
        return "anchors"
    if kind not in ARTIFACTS:
        return f"shared {kind.removeprefix('shared-')}" if kind.startswith("shared-") else f"artifact {kind}"
    name = ARTIFACTS[kind]
    if kind == "victim" and inputs.get("plugin") in CONTROL_VICTIMS:
        return "controls' networks"
    return f"{name}{inputs.get('plugin', '')}" if name.endswith(" ") else name


def watch_stages(clock: Clock) -> None:
    """Exchanges what makes artifacts, trains, measures and writes."""
    from leakbench import reports
    from leakbench.attacks import auto
    from leakbench.bench import recording, runner
    from leakbench.bench.stages import ann
    from leakbench.defenses import controls, conversion, datafree, privatesnn
    from leakbench.leakage.inversion import kind
    from leakbench.metrics import kes
    from leakbench.runtime import store, workspace

    def around_store(get_or_make: Callable[..., Any]) -> Callable[..., Any]:
        def timed(
            self: Any, stage: str, version: int, inputs: Mapping[str, Any], build: Callable[[], Any], parents: Any = ()
        ) -> Any:
            def built() -> Any:
                with clock.stage(stage_of(stage, inputs)):
                    return build()

            with clock.stage("store"):
                return get_or_make(self, stage, version, inputs, built, parents)

        return timed

    exchange("get_or_make", [store.Store], around_store)
    exchange("run", list({type(attack) for attack in auto.ATTACKS}), functools.partial(as_part, clock))
    for name, modules, stage in (
        ("dataset", [workspace.Workspace], "data loading"),
        ("public", [workspace.Workspace], "data loading"),
        ("train", [ann], "ANN training"),
        ("balance_thresholds", [controls, conversion, datafree, privatesnn], "threshold calibration"),
        ("encrypt", [privatesnn], "encryption training"),
        ("knowledge_extraction", [kes], "metrics: KES"),
        ("conclude", [kind], "verdict"),
        ("write_pictures", [kind, recording], "report writing"),
        ("save_record", [runner], "report writing"),
        ("write_report", [reports], "report writing"),
    ):
        exchange(name, modules, as_stage(clock, stage))


def watch_simulation(clock: Clock) -> None:
    """Exchanges the spiking network's two ways to simulate, and autograd's two ways to go back."""
    import torch

    from leakbench.snn import SpikingNetwork

    reached: list[float] = []  # when a gradient came to a simulation that it has not gone through yet

    def left(_gradient: torch.Tensor | None = None) -> None:
        if reached:
            clock.simulated("backward", clock.now() - reached.pop())

    def came(_gradient: torch.Tensor) -> None:
        # several simulations of the same images: one stretch from the first to where all have come back
        if not reached:
            reached.append(clock.now())

    def around_simulate(simulate: Callable[..., Any]) -> Callable[..., Any]:
        def timed(self: Any, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            start = clock.now()
            simulation = simulate(self, images, *args, **kwargs)
            seconds = clock.now() - start
            logits = (simulation[max(simulation)] if isinstance(simulation, dict) else simulation).logits
            clock.simulated(KINDS[logits.requires_grad], seconds, len(images))
            if logits.requires_grad:
                logits.register_hook(came)
                if images.requires_grad:
                    images.register_hook(left)
            return simulation

        return timed

    def around_currents(currents: Callable[..., Any]) -> Callable[..., Any]:
        def timed(self: Any, layer: Any, images: torch.Tensor, *args: Any, **kwargs: Any) -> Iterator[Any]:
            seconds, chunks = 0.0, currents(self, layer, images, *args, **kwargs)
            while True:
                start = clock.now()
                chunk = next(chunks, None)
                seconds += clock.now() - start
                if chunk is None:
                    break
                yield chunk
            clock.simulated("threshold search", seconds, len(images))

        return timed

    def around_engine(engine: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            try:
                return engine(*args, **kwargs)
            finally:
                left()

        return timed

    # forward, simulate and observe all end in _simulate, and beside it there is simulate_at
    exchange("_simulate" if hasattr(SpikingNetwork, "_simulate") else "simulate", [SpikingNetwork], around_simulate)
    exchange("simulate_at", [SpikingNetwork], around_simulate)
    exchange("currents", [SpikingNetwork], around_currents)
    exchange("grad", [torch.autograd], around_engine)
    exchange("backward", [torch.autograd], around_engine)
