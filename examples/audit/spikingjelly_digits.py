"""A network of SpikingJelly that is trained on the digits, and the files by which it is audited.

python examples/audit/spikingjelly_digits.py
leakbench audit --snn examples/audit/spikingjelly_digits.py:build --settings runs/audit/module.json
leakbench audit --snn runs/audit/spikingjelly_digits.nir
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import functional as states
from spikingjelly.activation_based import layer, neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir
from torch import Tensor, nn
from torch.nn import functional

from leakbench.data import load_dataset

FOLDER = Path("runs/audit")
STEPS, EPOCHS, BATCH = 16, 10, 64
OF_MODULE = {"format": 1, "timesteps": STEPS}
OF_NIR = {**OF_MODULE, "framework": "spikingjelly"}


def network() -> nn.Module:
    """One step of it: [B, 1, 8, 8] -> spikes [B, 10]."""
    return nn.Sequential(
        layer.Conv2d(1, 16, 3, padding=1), neuron.IFNode(), layer.AvgPool2d(2),
        layer.Flatten(), layer.Linear(256, 10), neuron.IFNode(),
    )  # fmt: skip


def run(module: nn.Module, encoded: Tensor) -> Tensor:
    """Input [T, B, 1, 8, 8] -> logits [B, 10], spikes summed over the steps."""
    states.reset_net(module)
    return torch.stack([module(x) for x in encoded]).sum(0)


def export(module: nn.Module, path: Path) -> None:
    """Writes the network in NIR."""
    states.reset_net(module)
    export_to_nir(module, torch.zeros(1, 1, 8, 8), str(path))


def build() -> nn.Module:
    """The trained network, for ``leakbench audit``."""
    module = network()
    module.load_state_dict(load_file(FOLDER / "spikingjelly_digits.safetensors"))
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
    save_file(module.state_dict(), FOLDER / "spikingjelly_digits.safetensors")
    (FOLDER / "module.json").write_text(json.dumps(OF_MODULE))
    export(module, FOLDER / "spikingjelly_digits.nir")
    (FOLDER / "spikingjelly_digits.json").write_text(json.dumps(OF_NIR))


if __name__ == "__main__":
    main()
