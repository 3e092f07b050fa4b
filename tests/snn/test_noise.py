"""The counter-based noise: the hash against arithmetic on Python integers, and the statistics of its streams."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from leakbench.snn.noise import image_keys, salted, uniform

CPU = torch.device("cpu")
MASK = 0xFFFFFFFF


def lowbias32(x: int) -> int:
    """C. Wellons' integer hash, as he prints it."""
    x &= MASK
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def by_hand(seed: int, image: int, counter: int) -> float:
    golden = 0x9E3779B9
    first = lowbias32(lowbias32(image * golden + seed) + (seed >> 32))
    second = lowbias32(first ^ 0x5BD1E995)
    return (lowbias32(lowbias32(counter * golden + first) ^ second) >> 8) / 2**24


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**62 - 12345])
def test_the_hash_is_what_integers_without_a_sign_give(seed: int) -> None:
    noise = uniform(image_keys(seed, 70_000, 2, CPU), 5, 8, (3, 2))
    expected = [
        by_hand(seed, 70_000 + image, (5 + step) * 6 + pixel)
        for step in range(3)
        for image in range(2)
        for pixel in range(6)
    ]
    assert noise.shape == (3, 2, 3, 2)
    assert noise.flatten().tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**40 + 1])
def test_noise_is_uniform(seed: int) -> None:
    values = uniform(image_keys(seed, 0, 20, CPU), 0, 100, (100,)).flatten().double()
    assert values.min() >= 0 and values.max() < 1
    assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-3
    # the first number of many images is as good a sample as many numbers of one
    across = uniform(image_keys(seed, 0, 100_000, CPU), 0, 1, (1,)).flatten().double()
    assert stats.kstest(across.numpy(), "uniform").pvalue > 1e-3


def correlations(rows: Tensor) -> Tensor:
    """Absolute correlations of all pairs of rows."""
    size = len(rows)
    return torch.corrcoef(rows.double())[tuple(torch.triu_indices(size, size, 1))].abs()


def test_images_steps_and_pixels_are_uncorrelated() -> None:
    side = 50
    noise = uniform(image_keys(7, 0, side, CPU), 0, side, (side,))
    # [steps, images, pixels]; 1225 pairs of 2500 numbers each: 5 sigma leaves a chance of 1e-3 that one is above
    bound = 5 / side
    for axis, name in enumerate(("steps", "images", "pixels")):
        assert correlations(noise.movedim(axis, 0).flatten(1)).max() < bound, name


def test_seeds_that_are_close_give_streams_that_are_not() -> None:
    seeds = [0, 1, 2, 3, 2**32, 2**32 + 1, 2**33, 2**62]
    rows = torch.stack([uniform(image_keys(seed, 0, 10, CPU), 0, 10, (100,)).flatten() for seed in seeds])
    assert correlations(rows).max() < 5 / 100


def test_salted_keys_give_streams_of_their_own() -> None:
    keys = image_keys(3, 0, 10, CPU)
    before = keys.clone()
    families = [keys, *(salted(keys, salt) for salt in (0, 1, 2, 7, 100))]
    assert torch.equal(keys, before)
    assert correlations(torch.stack([uniform(k, 0, 10, (100,)).flatten() for k in families])).max() < 5 / 100
    # image by image as well: 60 streams of 1000 numbers
    assert correlations(torch.cat([uniform(k, 0, 1, (1000,))[0] for k in families])).max() < 5 / 1000**0.5


@pytest.mark.slow
def test_no_two_of_many_images_share_a_key() -> None:
    keys = image_keys(3, 0, 200_000, CPU)
    assert len(keys.unique(dim=0)) == 200_000


def test_a_chunk_of_time_is_a_part_of_the_whole() -> None:
    keys = image_keys(11, 0, 3, CPU)
    whole = uniform(keys, 0, 10, (2, 4, 4))
    parts = [uniform(keys, start, stop, (2, 4, 4)) for start, stop in ((0, 3), (3, 4), (4, 10))]
    assert torch.equal(torch.cat(parts), whole)


def test_an_image_keeps_its_noise_in_every_batch() -> None:
    whole = uniform(image_keys(11, 0, 6, CPU), 0, 4, (5,))
    parts = [uniform(image_keys(11, first, count, CPU), 0, 4, (5,)) for first, count in ((0, 1), (1, 3), (4, 2))]
    assert torch.equal(torch.cat(parts, 1), whole)
    for i, j in itertools.combinations(range(6), 2):
        assert not torch.equal(whole[:, i], whole[:, j])
