"""Weights in standard form: what they are while a network is trained, and that plain weights are left."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from leakbench.contracts import InputRange
from leakbench.models.standardized import standardized
from leakbench.models.storage import build_ann, load_ann, save_network


def test_weights_have_mean_0_and_a_length_that_is_learnt_and_are_plain_afterwards() -> None:
    generator = torch.Generator().manual_seed(1)
    ann = build_ann("vgg4", (1, 8, 8), 3, InputRange(0.0, 1.0), generator).eval()
    names, x = list(ann.state_dict()), torch.rand(5, 1, 8, 8, generator=generator)
    layers = [module for module in ann.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with standardized(ann):
        rows = [layer.weight.flatten(1) for layer in layers]
        for row, length in zip(rows, [math.sqrt(2 / (1 - 1 / math.pi))] * 3 + [1.0], strict=True):
            torch.testing.assert_close(row.mean(1), torch.zeros(len(row)), rtol=0, atol=1e-6)
            torch.testing.assert_close(row.norm(dim=1), torch.full((len(row),), length))
        before = ann(x).detach()
        optimizer = torch.optim.SGD(ann.parameters(), lr=0.5)
        nn.functional.cross_entropy(ann(x), torch.tensor([0, 1, 2, 0, 1])).backward()
        optimizer.step()
        after = ann(x).detach()
    assert not torch.allclose(before, after)
    assert list(ann.state_dict()) == names
    assert torch.equal(ann(x), after)
    assert len(set(layers[1].weight.detach().flatten(1).norm(dim=1).tolist())) > 32
    tensors, record = save_network(ann)
    assert torch.equal(load_ann(tensors, record, torch.device("cpu"))(x), after)


def test_signals_keep_their_size_through_many_layers(generator: torch.Generator) -> None:
    """Weights of mean 0, whose length makes up for what ReLU takes away."""
    layers = [nn.Linear(512, 512, bias=False) for _ in range(20)]
    network = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())], nn.Linear(512, 2))
    x = torch.randn(256, 512, generator=generator)
    with standardized(network), torch.no_grad():
        spreads = []
        for layer in layers:
            before = layer(x)
            spreads.append(float(before.var(0).mean()))  # over images, of each neuron
            x = before.relu()
    assert spreads == pytest.approx([2 / (1 - 1 / math.pi)] * 20, rel=0.4)
