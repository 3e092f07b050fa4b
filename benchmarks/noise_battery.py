"""A battery of statistical tests on the noise of :mod:`leakbench.snn.noise`, along its own axes.

    python benchmarks/noise_battery.py                        all generators, four seeds, a few minutes on one core
    python benchmarks/noise_battery.py --words hash | dieharder -g 200 -a

What matters to a simulation is not one long stream, but that numbers of neighbouring pixels, steps, images and seeds
have nothing in common. So each test that looks at two numbers is done along each axis of a block [steps, images,
pixels], and each input bit is flipped (avalanche). The numbers have 24 bits.

P-values are two-sided, and adjusted by Holm's method over all tests and seeds of a generator: a generator fails with
one below .01. Beside the hash stand NumPy's PCG64, which must pass, and two generators that must fail, so that the
battery is seen to be able to find something: a linear congruential generator, and the hash with one of its two rounds,
whose streams are parts of one stream.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy import stats

from leakbench.metrics.intervals import holm
from leakbench.snn import noise

Words = NDArray[np.uint32]
Generator = Callable[[int, int, int, int], Words]
"""(seed, steps, images, pixels) -> numbers below 2**24, uint32 [steps, images, pixels]"""

BITS = 24
LEVEL = 0.01
"""a generator fails with an adjusted p-value below it"""
STEPS, IMAGES, PIXELS = 64, 64, 1024
AXES = ("step", "image", "pixel")
LAGS = 32
_CPU = torch.device("cpu")
_ONES = np.array([number.bit_count() for number in range(4096)], np.uint32)


# --- generators ------------------------------------------------------------------------------------------------------


def _of_keys(keys: torch.Tensor, steps: int, pixels: int) -> Words:
    values = noise.uniform(keys, 0, steps, (pixels,))
    return (values * 2.0**BITS).numpy().astype(np.uint32)


def hashed(seed: int, steps: int, images: int, pixels: int) -> Words:
    """The noise itself."""
    return _of_keys(noise.image_keys(seed, 0, images, _CPU), steps, pixels)


def salted(seed: int, steps: int, images: int, pixels: int) -> Words:
    """Each image twice, neighbours: its noise as it is, and as dropout salts it."""
    keys = noise.image_keys(seed, 0, -(-images // 2), _CPU)
    both = torch.stack([keys, noise.salted(keys, 0)], 1).flatten(0, 1)
    return _of_keys(both[:images].contiguous(), steps, pixels)


def one_round(seed: int, steps: int, images: int, pixels: int) -> Words:
    """The hash without its second round: the stream of an image begins somewhere in a stream that all have."""
    first = noise.image_keys(seed, 0, images, _CPU)[:, :1]
    counter = torch.arange(steps * pixels).to(torch.int32) * noise._signed(noise._GOLDEN)
    x = noise._mix(counter.view(steps, 1, pixels) + first)
    return (x.numpy().view(np.uint32) >> np.uint32(8)).astype(np.uint32)


def pcg64(seed: int, steps: int, images: int, pixels: int) -> Words:
    """NumPy's generator, all streams one after the other."""
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 2**BITS, (steps, images, pixels), np.uint32)


def lcg(seed: int, steps: int, images: int, pixels: int) -> Words:
    """x -> 1664525 x + 1013904223 modulo 2**32 (Numerical Recipes), all streams one after the other."""
    count, multiplier, increment = steps * images * pixels, 1664525, 1013904223
    x = np.empty(count, np.uint32)
    x[0], done = seed % 2**32, 1
    while done < count:  # x[n + done] is affine in x[n], too
        part = min(done, count - done)
        x[done : done + part] = x[:part] * np.uint32(multiplier) + np.uint32(increment)
        increment = (multiplier + 1) * increment % 2**32
        multiplier = multiplier**2 % 2**32
        done += part
    return (x >> np.uint32(32 - BITS)).reshape(steps, images, pixels)


GENERATORS: dict[str, Generator] = {
    "hash": hashed,
    "hash, salted": salted,
    "PCG64": pcg64,
    "LCG": lcg,
    "one round": one_round,
}
MUST_FAIL = ("LCG", "one round")


# --- tests -----------------------------------------------------------------------------------------------------------


def two_sided(lower: float, upper: float) -> float:
    """From P(X <= x) and P(X >= x)."""
    return min(1.0, 2 * min(lower, upper))


def chi_square(statistic: float, freedom: int) -> float:
    return two_sided(float(stats.chi2.cdf(statistic, freedom)), float(stats.chi2.sf(statistic, freedom)))


def poisson(count: int, expected: float) -> float:
    return two_sided(float(stats.poisson.cdf(count, expected)), float(stats.poisson.sf(count - 1, expected)))


def cells(values: NDArray[np.uint32], probabilities: NDArray[np.float64]) -> float:
    """Values in 0 ... len(probabilities) - 1 against the probability of each."""
    counts = np.bincount(values.ravel(), minlength=len(probabilities))
    expected = probabilities * values.size
    return chi_square(float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1)


def evenly(values: NDArray[np.uint32], count: int) -> float:
    return cells(values, np.full(count, 1 / count))


def correlations(block: Words, axis: int) -> float:
    """Of numbers that are 1 ... LAGS apart along an axis; each is normal, so their squares add up to a chi-square."""
    centred = np.moveaxis((block + 0.5) / 2**BITS - 0.5, axis, 0) * 12**0.5
    total = 0.0
    for lag in range(1, LAGS + 1):
        products = centred[lag:] * centred[:-lag]
        total += float(products.sum()) ** 2 / products.size
    return chi_square(total, LAGS)


def pairs(block: Words, axis: int, shift: int) -> float:
    """Six bits of a number and of its neighbour together."""
    along = np.moveaxis(block, axis, 0) >> np.uint32(shift) & np.uint32(63)
    return evenly(along[::2] << np.uint32(6) | along[1::2], 4096)


def differing_bits(block: Words, axis: int) -> float:
    """How many bits neighbours differ in."""
    along = np.moveaxis(block, axis, 0)
    differences = along[::2] ^ along[1::2]
    ones = _ONES[differences >> np.uint32(12)] + _ONES[differences & np.uint32(4095)]
    return cells(ones, stats.binom.pmf(np.arange(BITS + 1), BITS, 0.5))


def gaps(stream: Words) -> float:
    """Numbers between two that are below 1/16 of the range."""
    lengths = np.diff(np.flatnonzero(stream < 2**BITS // 16)) - 1
    longest = 100
    probabilities = stats.geom.pmf(np.arange(1, longest + 1), 1 / 16)
    return cells(np.minimum(lengths, longest).astype(np.uint32), np.append(probabilities, 1 - probabilities.sum()))


def runs(stream: Words) -> float:
    """Number of runs up and down (ties, one in 2**24, are left out)."""
    rises = np.diff(stream[np.append(True, np.diff(stream.astype(np.int64)) != 0)].astype(np.int64)) > 0
    n = len(rises) + 1
    z = (1 + np.count_nonzero(rises[1:] != rises[:-1]) - (2 * n - 1) / 3) / ((16 * n - 29) / 90) ** 0.5
    return float(2 * stats.norm.sf(abs(z)))


def birthday_spacings(stream: Words) -> float:
    """Equal spacings of 2**17 birthdays in a year of 2**48 days (Marsaglia): two a year in the mean."""
    days = stream[::2].astype(np.uint64) << np.uint64(BITS) | stream[1::2]
    spacings = np.sort(np.diff(np.sort(days.reshape(-1, 2**17), 1), axis=1), 1)
    return poisson(int(np.count_nonzero(spacings[:, 1:] == spacings[:, :-1])), 2.0 * len(spacings))


def repeated(first: Words, second: Words) -> float:
    """Pairs of 24 bits that occur again: parts of streams that are the same."""
    both = first.astype(np.uint64) << np.uint64(BITS) | second
    ordered = np.sort(both, axis=None)
    count = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
    return poisson(count, both.size**2 / 2 / 2 ** (2 * BITS))


def avalanche(differences: list[Words]) -> float:
    """Each of the bits of ``differences`` is 1 half of the time."""
    total = 0.0
    for words in differences:
        ones = [np.count_nonzero(words >> np.uint32(bit) & np.uint32(1)) for bit in range(BITS)]
        total += float(((np.array(ones) - words.size / 2) ** 2 / (words.size / 4)).sum())
    return chi_square(total, BITS * len(differences))


def flipped(block: Words, axis: int) -> list[Words]:
    """For each bit of a position along an axis: numbers at positions without it, xor those at positions with it."""
    along = np.moveaxis(block, axis, 0)
    positions = np.arange(len(along))
    bits = [1 << bit for bit in range((len(along) - 1).bit_length())]
    return [along[low] ^ along[low | bit] for bit in bits for low in [positions[positions & bit == 0]]]


def p_values(generator: Generator, seed: int) -> Iterator[tuple[str, float]]:
    """Every test of one seed, by name."""
    block = generator(seed, STEPS, IMAGES, PIXELS)
    streams = {"pixel": block.ravel(), "image": np.moveaxis(block, 1, 2).ravel()}
    yield "uniform (Kolmogorov-Smirnov)", float(stats.kstest((block.ravel() + 0.5) / 2**BITS, "uniform").pvalue)
    for byte in range(3):
        yield f"byte {byte}", evenly(block >> np.uint32(8 * byte) & np.uint32(255), 256)
    yield "lowest 12 bits", evenly(block & np.uint32(4095), 4096)
    for axis, name in enumerate(AXES):
        yield f"correlation along {name}s", correlations(block, axis)
        yield f"high bits of neighbouring {name}s", pairs(block, axis, BITS - 6)
        yield f"low bits of neighbouring {name}s", pairs(block, axis, 0)
        yield f"differing bits of neighbouring {name}s", differing_bits(block, axis)
        yield f"avalanche of {name}", avalanche(flipped(block, axis))
    for name, stream in streams.items():
        yield f"gaps along {name}s", gaps(stream)
        yield f"runs along {name}s", runs(stream)
        yield f"birthday spacings along {name}s", birthday_spacings(stream)
    many = generator(seed, 1, 8192, 512)[0]
    yield "parts of streams in other images", repeated(many[:, :-1], many[:, 1:])
    start = generator(seed, 1, 4096, 1)
    others = [generator(seed ^ 1 << bit, 1, 4096, 1) for bit in range(62)]
    yield "avalanche of seed", avalanche([start ^ other for other in others])


def shared_streams(generator: Generator, seeds: int = 64, images: int = 4096) -> int:
    """How many streams of ``seeds`` random seeds begin with the same three numbers as another; no test, a count."""
    rng = np.random.Generator(np.random.PCG64(1))
    starts = np.concatenate([generator(int(seed), 1, images, 3)[0] for seed in rng.integers(0, 2**62, seeds)])
    return len(starts) - len(np.unique(starts, axis=0))


# --- tables ----------------------------------------------------------------------------------------------------------


def examine(generator: Generator, seeds: list[int]) -> dict[str, float]:
    """Test -> the lowest over seeds of its p-values, adjusted for the number of all tests and seeds."""
    named = [one for seed in seeds for one in p_values(generator, seed)]
    lowest: dict[str, float] = {}
    for (name, _), p in zip(named, holm([p for _, p in named]), strict=True):
        lowest[name] = min(p, lowest.get(name, 1.0))
    return lowest


def passes(lowest: dict[str, float]) -> bool:
    return min(lowest.values()) >= LEVEL


def seeds_to_test(count: int) -> list[int]:
    """0, 1 and then 62 random bits each, as simulations draw them."""
    rng = np.random.Generator(np.random.PCG64(2022))
    return [0, 1, *(int(seed) for seed in rng.integers(0, 2**62, max(0, count - 2)))][:count]


def main(
    seeds: Annotated[int, typer.Option(min=1, help="how many")] = 4,
    words: Annotated[str, typer.Option(help="write this generator's bits to standard output without end")] = "",
) -> None:
    torch.set_num_threads(1)
    if words:
        write_words(words)
        return
    began, chosen = time.process_time(), seeds_to_test(seeds)
    findings = {name: examine(generator, chosen) for name, generator in GENERATORS.items()}
    tests = list(next(iter(findings.values())))
    print(f"{len(tests)} tests x {seeds} seeds a generator; the lowest adjusted p-value over seeds:\n")
    print(f"| test | {' | '.join(findings)} |\n|---|{'---|' * len(findings)}")
    for test in tests:
        print(f"| {test} | {' | '.join(f'{lowest[test]:.2g}' for lowest in findings.values())} |")
    print(f"| **verdict** | {' | '.join('passes' if passes(lowest) else 'fails' for lowest in findings.values())} |")
    shared = (str(shared_streams(generator)) for generator in GENERATORS.values())
    print(f"| streams shared by 64 seeds x 4096 images | {' | '.join(shared)} |")
    print(f"\n{time.process_time() - began:.0f} s of processor time")
    if any(passes(lowest) == (name in MUST_FAIL) for name, lowest in findings.items()):
        raise typer.Exit(1)


def write_words(name: str) -> None:
    """Blocks of one seed after the other, 24 bits a number without a gap, until nobody reads any more."""
    if name not in GENERATORS:
        raise typer.BadParameter(f"no generator {name!r}: one of {', '.join(GENERATORS)}")
    rng = np.random.Generator(np.random.PCG64(1))
    try:
        while True:
            block = GENERATORS[name](int(rng.integers(0, 2**62)), STEPS, IMAGES, PIXELS).ravel()
            sys.stdout.buffer.write(block.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush goes nowhere


if __name__ == "__main__":
    typer.run(main)
