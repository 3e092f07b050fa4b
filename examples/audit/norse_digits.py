"""A network of Norse that is trained on the digits, and the files by which it is audited.

python examples/audit/norse_digits.py
leakbench audit --snn examples/audit/norse_digits.py:build --settings runs/audit/module.json
leakbench audit --snn runs/audit/norse_digits.nir
"""

from __future__ import annotations

import json
from pathlib import Path

import nir
import norse.torch as norse
import torch
from norse.torch.utils.export_nir import to_nir
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from leakbench.data import load_dataset

FOLDER = Path("runs/audit")
STEPS, EPOCHS, BATCH = 16, 20, 64
OF_MODULE = {"format": 1, "timesteps": STEPS}
OF_NIR = {**OF_MODULE, "framework": "norse"}


def network() -> nn.Module:
    """One step of it: [B, 1, 8, 8] and states -> spikes [B, 10] and states."""

    def neurons(*shape: int) -> nn.Module:
        """A NIR file takes constants of the neurons' shape only, and Norse exports them in the shape that they have."""
        zero, one = torch.zeros(shape), torch.ones(shape)
        cell: nn.Module = norse.LIFBoxCell(norse.LIFBoxParameters(500 * one, v_leak=zero, v_th=one, v_reset=zero))
        return cell

    layers = (
        nn.Conv2d(1, 32, 3, stride=2, padding=1), neurons(32, 4, 4), nn.Flatten(), nn.Linear(512, 10), neurons(10),
    )  # fmt: skip
    chain: nn.Module = norse.SequentialState(*layers)
    return chain


def run(module: nn.Module, encoded: Tensor) -> Tensor:
    """Input [T, B, 1, 8, 8] -> logits [B, 10], spikes summed over the steps."""
    state, total = None, torch.zeros(())
    for x in encoded:
        spikes, state = module(x, state)
        total = total + spikes
    return total


def export(module: nn.Module, path: Path) -> None:
    """Writes the network in NIR. Norse's export leaves out the images' size and what flattens maps."""
    graph = to_nir(module, torch.zeros(1, 1, 8, 8))
    graph.nodes["0"].input_shape = (8, 8)
    graph.nodes["2"] = nir.Flatten((32, 4, 4), 0, -1)
    nir.write(path, graph)


def build() -> nn.Module:
    """The trained network, for ``leakbench audit``."""
    module = network()
    module.load_state_dict(load_file(FOLDER / "norse_digits.safetensors"))
    return module


def main() -> None:
    torch.manual_seed(0)
    module, data = network(), load_dataset("digits")
    images, labels = data.train.images / 255, data.train.labels
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH):
            x = images[index]
            logits = run(module, (torch.rand(STEPS, *x.shape) < x).float())
            optimizer.zero_grad()
            functional.cross_entropy(logits, labels[index]).backward()
            optimizer.step()
    with torch.no_grad():
        x = data.test.images / 255
        answers = run(module, (torch.rand(STEPS, *x.shape) < x).float()).argmax(1)
    print(f"accuracy on {len(x)} test images: {float((answers == data.test.labels).float().mean()):.3f}")

    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), FOLDER / "norse_digits.safetensors")
    (FOLDER / "module.json").write_text(json.dumps(OF_MODULE))
    export(module, FOLDER / "norse_digits.nir")
    (FOLDER / "norse_digits.json").write_text(json.dumps(OF_NIR))


if __name__ == "__main__":
    main()
