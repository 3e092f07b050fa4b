"""Strong inversion: its losses by hand, and restarts that are chosen by the victim's own confidence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leakbench.attacks.inversion import Inversion, margin_loss, total_variation
from leakbench.contracts import Access, Context, ImageClassifier, Victim
from leakbench.snn import SpikingNetwork


def test_the_margin_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [1.0, 4.0, 2.5], [-3.0, -3.0, -7.0]])
    assert margin_loss(logits, torch.tensor([1, 2, 0])).tolist() == [2.5 - 4.0, 4.0 - 2.5, 0.0]


def test_total_variation_by_hand() -> None:
    x = torch.tensor([[[[0.0, 1.0], [3.0, 0.0]]]])
    # across: |1 - 0| + |0 - 3|; down: |3 - 0| + |0 - 1|
    assert total_variation(x).tolist() == [1 + 3 + 3 + 1]
    both = torch.cat([x, 2 * x])
    assert total_variation(both).tolist() == [8, 16]
    assert total_variation(x.expand(1, 3, 2, 2)).tolist() == [24]
    assert total_variation(torch.ones(2, 3, 5, 4)).tolist() == [0, 0]


def test_the_restart_is_chosen_image_by_image_by_the_victims_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    # class 0 wants bright images, class 1 dark ones
    linear = nn.Linear(4, 2, bias=False)
    nn.init.constant_(linear.weight[0], 1.0)
    nn.init.constant_(linear.weight[1], -1.0)
    body = nn.Sequential(nn.Flatten(), nn.ReLU(), linear)
    network = ImageClassifier(body, (1, 2, 2), 2).eval().requires_grad_(False)
    # brightness of four images in three restarts
    restarts = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.8, 0.2, 0.6, 0.2], [0.4, 0.5, 0.1, 0.9]])

    def prepared(_self: Inversion, *args: object) -> Tensor:
        number = args[-1]
        assert isinstance(number, int)
        images: Tensor = restarts[number].view(4, 1, 1, 1).expand(4, 1, 2, 2)
        return images

    monkeypatch.setattr(Inversion, "_invert", prepared)
    targets = torch.tensor([0, 0, 1, 1])
    context = Context(torch.Generator())
    made = Inversion(restarts=3)(Victim(network, Access.WEIGHTS), targets, context)
    assert made.images[:, 0, 0, 0].tolist() == pytest.approx([0.8, 0.9, 0.1, 0.2])
    assert made.cost.queries == 3 * 4


def test_more_restarts_never_lower_the_confidence(digits_ann: ImageClassifier) -> None:
    targets = torch.arange(10)

    def confidence(restarts: int) -> Tensor:
        context = Context(torch.Generator().manual_seed(2))
        attack = Inversion(iterations=8, restarts=restarts)
        images = attack(Victim(digits_ann, Access.WEIGHTS), targets, context).images
        reached: Tensor = digits_ann(images).softmax(1).gather(1, targets[:, None])
        return reached

    # the first restart is the same in all of them: the generator starts alike
    one, two, four = confidence(1), confidence(2), confidence(4)
    assert (two >= one - 1e-6).all() and (four >= two - 1e-6).all()
    assert (four > one + 1e-6).any()


def test_a_spiking_victims_confidence_is_averaged_over_draws(digits_snn: SpikingNetwork) -> None:
    context = Context(torch.Generator().manual_seed(0))
    attack = Inversion(iterations=2, restarts=3, confidence_draws=5)
    made = attack(Victim(digits_snn, Access.WEIGHTS), torch.tensor([4, 7]), context)
    assert made.cost.queries == 3 * 5 * 2
    assert made.cost.gradient_steps == 3 * 2


def test_total_variation_makes_images_smoother(digits_ann: ImageClassifier) -> None:
    def roughness(weight: float) -> float:
        context = Context(torch.Generator().manual_seed(0))
        attack = Inversion(iterations=60, restarts=1, total_variation=weight)
        images = attack(Victim(digits_ann, Access.WEIGHTS), torch.arange(10), context).images
        return float(total_variation(images).mean())

    assert roughness(1.0) < roughness(0.05) < roughness(0.0)


def test_one_step_is_adams_on_the_loss_written_out(digits_ann: ImageClassifier) -> None:
    """Adam's first step is lr times the sign of the gradient: it must point down the loss, jitter included."""
    targets = torch.arange(10)
    context = Context(torch.Generator().manual_seed(4))
    attack = Inversion(iterations=1, restarts=1, total_variation=0.1)
    images = attack(Victim(digits_ann, Access.WEIGHTS), targets, context).images

    generator = torch.Generator().manual_seed(4)
    w = torch.randn(10, 1, 8, 8, generator=generator).requires_grad_()
    dy, dx = (int(shift) for shift in torch.randint(-1, 2, (2,), generator=generator))  # 8x8 images: by one pixel
    x = torch.sigmoid(w)
    logits = digits_ann(x.roll((dy, dx), (2, 3)))
    own = logits[range(10), targets]
    others = torch.stack([logits[i, targets != i].max() for i in range(10)])
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    loss = (others - own).sum() + 0.1 * (across.sum() + down.sum())
    (gradient,) = torch.autograd.grad(loss, w)
    stepped = torch.sigmoid(w - 0.05 * gradient.sign()).detach()
    clear = gradient.abs() > 1e-5  # where rounding can't turn the sign, and Adam's epsilon of 1e-8 is nothing
    assert clear.double().mean() > 0.9
    torch.testing.assert_close(images[clear], stepped[clear], rtol=0, atol=1e-4)
