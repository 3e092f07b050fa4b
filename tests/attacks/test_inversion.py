"""Strong inversion: restarts that are chosen by the victim's own confidence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.inversion import Inversion
from leakbench.contracts import Access, AttackContext, ImageClassifier, Victim
from leakbench.snn import SpikingConfig, SpikingNetwork


@pytest.mark.slow
def test_more_restarts_never_lower_the_confidence(digits_ann: ImageClassifier) -> None:
    targets = torch.arange(10)

    def confidence(restarts: int) -> Tensor:
        context = AttackContext(torch.Generator().manual_seed(2))
        # of one unshifted answer: what chooses is then what is compared
        attack = Inversion(iterations=8, restarts=restarts, confidence_draws=1)
        images = attack(Victim(digits_ann, Access.WEIGHTS), targets, context).images
        reached: Tensor = digits_ann(images).softmax(1).gather(1, targets[:, None])
        return reached

    # the first restart is the same in all of them: the generator starts alike
    one, two, four = confidence(1), confidence(2), confidence(4)
    assert (two >= one - 1e-6).all() and (four >= two - 1e-6).all()
    assert (four > one + 1e-6).any()


def test_confidence_is_asked_once_a_draw_image_and_restart(digits_snn: SpikingNetwork) -> None:
    context = AttackContext(torch.Generator().manual_seed(0))
    attack = Inversion(iterations=2, restarts=3, confidence_draws=5)
    made = attack(Victim(digits_snn, Access.WEIGHTS), torch.tensor([4, 7]), context)
    assert made.cost.queries == 3 * 5 * 2
    assert made.cost.gradient_steps == 3 * 2


@pytest.mark.slow
def test_a_weight_scaled_conversion_falls_like_the_plain_one(
    digits_ann: ImageClassifier, digits_snn: SpikingNetwork
) -> None:
    """Unit thresholds with the scales in the weights hide nothing: same images as for any other choice of scales."""

    balanced = [float(layer.threshold) for layer in digits_snn.neurons]

    def attacked(factors: list[float]) -> Tensor:
        scales = [factor * threshold for factor, threshold in zip(factors, balanced, strict=True)]
        network = SpikingNetwork.from_ann(digits_ann, SpikingConfig(16))
        for layer in network.neurons:
            layer.set_threshold(1.0)
        weights = [m for m in network.body.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        with torch.no_grad():
            for layer, before, own in zip(weights, [1.0, *scales], [*scales, 1.0], strict=True):
                layer.weight.mul_(before / own)
        network.requires_grad_(False)
        context = AttackContext(torch.Generator().manual_seed(0))
        # one restart: which of several is chosen depends on the victim's spikes
        attack = Inversion(iterations=10, restarts=1)
        return attack(Victim(network, Access.WEIGHTS), torch.arange(10), context).images

    torch.testing.assert_close(attacked([1.0, 1.0, 1.0]), attacked([0.8, 0.5, 0.9]), rtol=0, atol=1e-3)
