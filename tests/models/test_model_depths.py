"""How deep the built-in families are, which decides T where none is asked for."""

from __future__ import annotations

import pytest
import torch

from leakbench.contracts import InputRange
from leakbench.models import model_depth
from leakbench.models.storage import build_ann
from leakbench.registry import built_in
from leakbench.snn import SpikingConfig, SpikingNetwork


@pytest.mark.slow
@pytest.mark.parametrize("model", built_in("model"))
def test_a_models_depth_is_the_number_of_its_layers_of_neurons(model: str) -> None:
    ann = build_ann(model, (3, 32, 32), 10, InputRange(-1.0, 1.0), torch.Generator().manual_seed(0))
    assert model_depth(model) == len(list(SpikingNetwork.from_ann(ann, SpikingConfig(1)).neurons))


def test_of_a_third_partys_network_nothing_is_known() -> None:
    assert model_depth("mine.py:vgg4") is None
    assert model_depth("mine.py:build@" + "0" * 64) is None
