"""A network of neurons that no framework has, trained on the digits, and the files by which it is audited.

python examples/audit/own_neurons_digits.py
leakbench audit --snn examples/audit/own_neurons_digits.py:build --settings runs/audit/own_neurons.json
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from leakbench.data import load_dataset

FOLDER = Path("runs/audit")
STEPS, EPOCHS, BATCH = 12, 12, 64
SETTINGS = {"format": 1, "forward": "step", "timesteps": STEPS}


class Spike(torch.autograd.Function):
    """1 above 0, with the derivative of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return grad / (1 + 4 * v.abs()) ** 2


class Adaptive(nn.Module):
    """Leaky neurons whose threshold rises by 0.3 with each spike and sinks back to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | float = 0.0
        self.tired: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        membrane, tired = 0.9 * self.membrane + x, 0.8 * self.tired
        spikes: Tensor = Spike.apply(membrane - 1 - tired)
        self.membrane, self.tired = membrane - spikes * (1 + tired), tired + 0.3 * spikes
        return spikes


def network() -> nn.Module:
    """One step of it: [B, 1, 8, 8] -> outputs [B, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), Adaptive(), nn.Conv2d(16, 32, 3, stride=2, padding=1), Adaptive(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def build() -> nn.Module:
    """The trained network, for ``leakbench audit``."""
    module = network()
    module.load_state_dict(load_file(FOLDER / "own_neurons.safetensors"))
    return module


def run(module: nn.Module, images: Tensor) -> Tensor:
    """Images [B, 1, 8, 8] -> logits [B, 10], outputs summed over steps; each begins with fresh states."""
    fresh = copy.deepcopy(module, {id(one): one for one in module.parameters()})
    logits: Tensor = torch.stack([fresh((torch.rand_like(images) < images).float()) for _ in range(STEPS)]).sum(0)
    return logits


def main() -> None:
    torch.manual_seed(0)
    module, data = network(), load_dataset("digits")
    images, labels = data.train.images / 255, data.train.labels
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(run(module, images[index]), labels[index]).backward()
            optimizer.step()
    with torch.no_grad():
        answers = run(module, data.test.images / 255).argmax(1)
    right = float((answers == data.test.labels).float().mean())
    print(f"accuracy on {len(answers)} test images: {right:.3f}")

    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), FOLDER / "own_neurons.safetensors")
    (FOLDER / "own_neurons.json").write_text(json.dumps(SETTINGS))


if __name__ == "__main__":
    main()
