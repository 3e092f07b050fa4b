"""SPSA: the estimate of a gradient from two answers a direction, and that it climbs with scores alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leakbench.attacks.spsa import Spsa
from leakbench.contracts import Access, AttackContext, ImageClassifier, Victim
from leakbench.snn import Neuron, SpikingConfig, SpikingNetwork, Surrogate

TEN = torch.arange(10)


def confidence(network: ImageClassifier, **params: object) -> Tensor:
    made = Spsa(**params)(Victim(network, Access.SCORES), TEN, AttackContext(torch.Generator().manual_seed(0)))
    own: Tensor = network(made.images).softmax(1)[range(10), TEN]
    return own


@pytest.mark.slow
def test_it_climbs_with_scores_alone(digits_ann: ImageClassifier) -> None:
    short, long = (float(confidence(digits_ann, iterations=n).mean()) for n in (5, 60))
    assert short < long
    assert long > 0.8


@pytest.mark.slow
def test_one_step_follows_the_mean_of_its_directions(digits_ann: ImageClassifier) -> None:
    """With a small spread and many directions, the estimate is the gradient; Adam's first step is its sign."""
    params = {"iterations": 1, "directions": 400, "spread": 1e-2, "lr": 0.05}
    context = AttackContext(torch.Generator().manual_seed(3))
    made = Spsa(**params)(Victim(digits_ann, Access.SCORES), TEN, context)
    w = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    logits = digits_ann(torch.sigmoid(w))
    others = torch.stack([logits[i, i != TEN].max() for i in range(10)])
    (gradient,) = torch.autograd.grad((others - logits[range(10), TEN]).sum(), w)
    moved = torch.logit(made.images) - w.detach()
    strong = gradient.abs() > gradient.abs().flatten().quantile(0.8)
    assert ((moved.sign() == -gradient.sign()) & strong).sum() > 0.9 * strong.sum()


@pytest.mark.slow
def test_masked_gradients_do_not_stop_it(digits_snn: SpikingNetwork) -> None:
    masked = digits_snn.configured(SpikingConfig(16, "poisson", Neuron(surrogate=Surrogate("triangle", 1e-9))))
    context = AttackContext(torch.Generator().manual_seed(0))
    made = Spsa(iterations=40)(Victim(masked, Access.SCORES), TEN, context)
    with torch.no_grad():
        assert masked(made.images, seed=1).softmax(1)[range(10), TEN].mean() > 0.4
