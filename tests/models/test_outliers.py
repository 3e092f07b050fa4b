"""Outliers: shapes, ranges, and that they keep what they should and lose the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from leakbench.models.outliers import outliers, patch_shuffled, phase_scrambled, spectral_noise


def images(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def test_every_kind_has_its_images_and_the_seed_decides(generator: torch.Generator) -> None:
    private, photographs = ((images(count, (3, 9, 13)) * 255).to(torch.uint8) for count in (5, 2))
    kinds = outliers(private, photographs, 7, generator)
    assert kinds.keys() == {"noise", "phases", "patches", "photographs"}
    for tensor in kinds.values():
        assert tensor.dtype == torch.uint8 and tensor.shape == (7, 3, 9, 13)
    again = outliers(private, photographs, 7, torch.Generator().manual_seed(2022))
    assert all(torch.equal(tensor, again[kind]) for kind, tensor in kinds.items())
    # photographs are shown as they are
    known = {bytes(photograph.numpy().tobytes()) for photograph in photographs}
    assert {bytes(one.numpy().tobytes()) for one in kinds["photographs"]} <= known


def test_noise_is_of_every_coarseness(generator: torch.Generator) -> None:
    noise = spectral_noise(400, (1, 16, 16), generator)
    assert noise.min() >= 0 and noise.max() <= 1
    centred = noise - noise.mean((1, 2, 3), keepdim=True)
    neighbours = (centred[..., 1:] * centred[..., :-1]).mean((1, 2, 3)) / centred.var((1, 2, 3))
    # from white (a neighbour says nothing) to smooth (it says all)
    assert neighbours.min() < 0.1 and neighbours.max() > 0.8


def test_phases_are_random_and_amplitudes_stay(generator: torch.Generator) -> None:
    x = 0.45 + 0.1 * images(3, (2, 8, 9))  # far from both ends, where the scrambled image would be cut
    scrambled = phase_scrambled(x, generator)
    before, after = (torch.fft.rfft2(one)[..., 1:4, 1:4] for one in (x, scrambled))
    torch.testing.assert_close(after.abs(), before.abs(), rtol=1e-3, atol=1e-4)
    turned = after.angle() - before.angle()
    assert turned.std() > 1
    # all channels alike
    assert torch.allclose(torch.cos(after[:, 0].angle()), torch.cos(after[:, 1].angle()), atol=1e-3)


def test_patches_are_the_images_own(generator: torch.Generator) -> None:
    x = images(20, (1, 12, 12))  # 2, 3 and 4 divide 12: no pixel is repeated
    shuffled = patch_shuffled(x, generator)
    for one, other in zip(x, shuffled, strict=True):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
    assert (shuffled != x).any((1, 2, 3)).float().mean() > 0.8
    assert patch_shuffled(images(2, (3, 7, 5)), generator).shape == (2, 3, 7, 5)
