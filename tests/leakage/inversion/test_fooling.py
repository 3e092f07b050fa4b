"""Fooling rates: a measurement that is interrupted ends with the numbers of one that is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import OURS, Warm, artifacts, copied, forget
from torch import Tensor, nn

from leakbench.bench.grid import make_config
from leakbench.bench.pipeline import Pipeline
from leakbench.bench.suites import cells_of
from leakbench.cells import AttackCell
from leakbench.contracts import Context, ModuleNetwork
from leakbench.leakage.inversion import fooling
from leakbench.runtime import checkpoints
from leakbench.runtime.process import fixed_threads
from leakbench.runtime.workspace import Settings, Stage

ASKED = "asking the protected network"


class Interrupted(BaseException):
    """What ends a stage without its fault, as Ctrl-C does."""


def measured(warm: Warm, cache: Path, stop: int | None) -> int:
    """How often the network is asked for its answers, until it is the ``stop``-th time."""
    cells = cells_of(make_config(warm.tiny.options()))
    cell = next(
        c for c in cells if type(c) is AttackCell and (c.defense.name, c.attack.name) == (OURS, "direct")
    )  # fmt: skip
    asked = 0

    def progress(what: str, _done: int, _total: int) -> None:
        nonlocal asked
        if what == ASKED:
            asked += 1
            if asked == stop:
                raise Interrupted

    with fixed_threads(1):
        Pipeline(Settings(str(cache)), progress).perform("compute", cell)
    return asked


def files(cache: Path, key: str) -> dict[str, bytes]:
    return {name: (cache / "objects" / key[:2] / key / name).read_bytes() for name in ("record.json", "manifest.json")}


@pytest.mark.slow
def test_answers_that_were_given_are_not_asked_for_again(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unperturbed, with random signs, and with perturbations from noise, real and the attack's images."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    cache = copied(warm.cache, tmp_path / "cache")
    forget(cache, "uap-brackets")
    before = artifacts(cache)
    with pytest.raises(Interrupted):
        measured(warm, cache, stop=3)
    assert measured(warm, cache, stop=None) == 3
    new = artifacts(cache).keys() - before.keys()
    assert len(new) == 2
    for key in new:
        assert files(cache, key) == files(warm.cache, key)


class Noise(nn.Module):
    """Answers that follow from the seed alone, and hardly from the images."""

    def forward(self, images: Tensor, seed: int) -> Tensor:
        drawn = torch.randn(len(images), 3, generator=torch.Generator().manual_seed(seed))
        return drawn + 1e-9 * images.flatten(1).sum(1, keepdim=True)


def test_other_noise_of_a_module_is_no_fooling() -> None:
    """Its answers change from call to call, whatever the images."""
    labels = torch.arange(30) % 3
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    evaluation = SimpleNamespace(
        real=SimpleNamespace(labels=labels, images=images), some_anchors=lambda *_: torch.arange(6)
    )

    def make(stage: Stage, seed: int, _inputs: object, build: Any, _parents: object) -> Any:
        tensors, record = build(Context(torch.Generator().manual_seed(seed % 2**31)))
        return SimpleNamespace(key=stage.name, tensors=tensors, record=record)

    workspace: Any = SimpleNamespace(
        make=make, seed=lambda _: 0, device=torch.device("cpu"), progress=lambda *_: None,
        dataset=lambda _: SimpleNamespace(test=SimpleNamespace(labels=labels, images=images)),
    )  # fmt: skip
    attack: Any = SimpleNamespace(key="a", tensors={"targets": labels[:6], "images": images[:6]})
    network = ModuleNetwork(Noise(), (1, 8, 8), 3)
    deployed: Any = SimpleNamespace(network=network, identity="n", artifact=SimpleNamespace(key="n"))
    measured = fooling.fooled(workspace, evaluation, "digits", 2, attack, deployed)
    assert {value.metric: value.value for value in measured.values} == dict.fromkeys(
        ["uap_fooling", "uap_fooling_noise", "uap_fooling_random", "uap_fooling_real"], 0.0
    )
