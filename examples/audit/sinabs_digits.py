"""A network of sinabs that is trained on the digits, and the files by which it is audited.

python examples/audit/sinabs_digits.py
leakbench audit --snn examples/audit/sinabs_digits.py:build --settings runs/audit/module.json
leakbench audit --snn runs/audit/sinabs_digits.nir
"""

from __future__ import annotations

import json
from pathlib import Path

import nir
import torch
from sinabs import layers
from sinabs.nir import to_nir
from torch import Tensor, nn
from torch.nn import functional

from leakbench.data import load_dataset

FOLDER = Path("runs/audit")
STEPS, EPOCHS, BATCH = 16, 10, 64
OF_MODULE = {"format": 1, "timesteps": STEPS}
OF_NIR = {**OF_MODULE, "framework": "sinabs", "neurons": {"fires": "many", "floor": -1.0}}


def network() -> nn.Module:
    """[B, 1, 8, 8] -> spikes [B, 10], where a batch holds the steps of one image after those of another."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), layers.IAFSqueeze(batch_size=1, min_v_mem=-1.0), layers.SumPool2d(2),
        nn.Flatten(), nn.Linear(256, 10), layers.IAFSqueeze(batch_size=1, min_v_mem=-1.0),
    )  # fmt: skip


def forget(module: nn.Module, batch: int) -> None:
    """Resets membranes, for a batch of so many images."""
    for neurons in module.modules():
        if isinstance(neurons, layers.IAFSqueeze):
            neurons.batch_size = batch
            neurons.v_mem = torch.zeros(0)


def run(module: nn.Module, encoded: Tensor) -> Tensor:
    """Input [T, B, 1, 8, 8] -> logits [B, 10], spikes summed over the steps."""
    steps, batch = encoded.shape[:2]
    forget(module, batch)
    spikes: Tensor = module(encoded.transpose(0, 1).flatten(0, 1))
    return spikes.view(batch, steps, -1).sum(1)


def export(module: nn.Module, path: Path) -> None:
    """Writes the network in NIR."""
    forget(module, 1)
    graph = to_nir(module, torch.zeros(1, 1, 8, 8))
    graph.infer_types()
    nir.write(path, graph)


def build() -> nn.Module:
    """The trained network, for ``leakbench audit``."""
    module = network()
    module.load_state_dict(torch.load(FOLDER / "sinabs_digits.pt", weights_only=True))
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
    forget(module, 1)
    torch.save(module.state_dict(), FOLDER / "sinabs_digits.pt")
    (FOLDER / "module.json").write_text(json.dumps(OF_MODULE))
    export(module, FOLDER / "sinabs_digits.nir")
    (FOLDER / "sinabs_digits.json").write_text(json.dumps(OF_NIR))


if __name__ == "__main__":
    main()
