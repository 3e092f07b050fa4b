"""Compiled kernels that read spikes and not zeros: the inner loops of :mod:`leakbench.snn.engine.events`.

Numba compiles them at first use and keeps them on disk; importing this module is what loads Numba, so nothing imports
it before a network is simulated. All release the interpreter's lock and work on the images first ... last - 1 of a
batch, so that threads can share one.

Layouts: T steps, B images, maps [H, W, C] with the channels innermost. Spikes are int8, [T, B, H, W, C]: the number of
spikes of a neuron, or of the neurons that an average pooling takes together; -1 occurs where an image has negative
pixels. Weights come in blocks of output channels, [blocks, KH * KW * C_in, width], width a multiple of LANES: one row
is what a spike adds to a block of currents.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from leakbench.snn.engine.vectors import (
    ARCTAN,
    EVERY,
    FAST_SIGMOID,
    FIRED,
    LANES,
    ONES,
    OUTPUT,
    PATCH,
    RECTANGLE,
    TRIANGLE,
    VALUES,
    add_rows,
    back_a_step,
    first_bit,
    from_points,
    neurons_of_currents,
    neurons_of_spikes,
    to_points,
    which_spike,
)

VECTORS = "b8ece1bc5c176093"
"""digest of vectors.py, which is compiled into these kernels: when this file changes, Numba forgets those on disk"""


@njit(nogil=True, cache=True)
def poisson(first, last, start, x, keys, spikes, counts):
    """Signed Poisson spikes of images x [B, C, H, W] in [-1, 1] for steps start, start + 1, ...

    The same numbers as :func:`leakbench.snn.noise.uniform`, made where they are compared. ``keys`` uint32 [B, 2];
    ``counts`` int64 [T, B] receives the number of spikes.
    """
    steps = spikes.shape[0]
    channels, height, width = x.shape[1:]
    size = channels * height * width
    for b in range(first, last):
        one, two = keys[b, 0], keys[b, 1]
        for t in range(steps):
            spike_count = 0
            for c in range(channels):
                for i in range(height):
                    for j in range(width):
                        level = x[b, c, i, j]
                        at = (start + t) * size + (c * height + i) * width + j
                        n = _mix(_mix(np.uint32(np.uint32(at) * np.uint32(0x9E3779B9) + one)) ^ two)
                        u = np.float32(n >> np.uint32(8)) * np.float32(2.0**-24)
                        s = np.int8(0)
                        if u <= abs(level) and level != 0:
                            s = np.int8(1) if level > 0 else np.int8(-1)
                            spike_count += 1
                        spikes[t, b, i, j, c] = s
            counts[t, b] = spike_count


@njit(inline="always")
def _mix(x):
    # Numba's products of 32 bits have 64
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(nogil=True, cache=True)
def list_spikes(first, last, spikes, begin, ends, index, value):
    """The spikes of each pixel as a list, image by image.

    ``spikes`` [T, B, H, W, C]; ``begin`` [T * B + 1] says where an image's list has its place. Writes ``ends``
    [T, B, H * W + 1], where the pixels' lists begin and end; ``index``, x * C + c of each spike; ``value``, its number
    of spikes.
    """
    steps, batch, height, width, channels = spikes.shape
    spikes_ = spikes.reshape(-1)
    whole = channels // LANES * LANES
    for b in range(first, last):
        for t in range(steps):
            at, stop = begin[t * batch + b], begin[t * batch + b + 1]
            start = (t * batch + b) * height * width * channels
            for p in range(height * width):
                ends[t, b, p] = at
                pixel, line = start + p * channels, p % width * channels
                # branches on single spikes are what would take the time, as nothing foresees them
                for k in range(0, whole, 64):
                    mask = np.uint64(0)
                    for n in range(k, min(k + 64, whole), LANES):
                        mask |= which_spike(spikes_, pixel + n) << np.uint64(n - k)
                    while mask:
                        c = k + np.int64(first_bit(mask))
                        index[at] = line + c
                        value[at] = spikes_[pixel + c]
                        at += 1
                        mask &= mask - np.uint64(1)
                for k in range(whole, channels):
                    if at < stop:
                        index[at] = line + k
                        value[at] = spikes_[pixel + k]
                        at += spikes_[pixel + k] != 0
            ends[t, b, height * width] = at


@njit(nogil=True, cache=True)
def events_to_neurons(
    first, last, x, kernel_h, kernel_w, stride, padding, read, ends, index, value, weights, vectors, bias, u, theta,
    leak, hard, pool, spikes, pre, keep, counts,
):  # fmt: skip
    """Convolution of spikes, fused with the neurons that it feeds and the average pooling behind them.

    ``x`` int8 [T, B, H, W, C_in]; ``read`` EVERY: all of its entries are read; ONES or VALUES: what is listed of it,
    without or with its value. ``weights`` [blocks, rows, vectors * LANES]; ``bias``, ``theta`` [C]; ``u`` [B, H, W, C]
    the membranes, changed in place; ``spikes`` [T, B, H // pool, W // pool, C], zero before, receives what fired;
    ``pre`` [T, B, H, W, C] the membranes before the reset where ``keep``; ``counts`` [T, B], zero before, the number
    fired.
    """
    steps, _, height_in, width_in, channels_in = x.shape
    batch, height, width, channels = u.shape
    block = vectors * LANES
    pooled_h, pooled_w = spikes.shape[2], spikes.shape[3]
    x_, ends_, u_, spikes_, pre_ = (
        x.reshape(-1),
        ends.reshape(-1),
        u.reshape(-1),
        spikes.reshape(-1),
        pre.reshape(-1),
    )
    step = kernel_w * channels_in * block
    # places are counted in pixels of lists, which have an end more than pixels, or in entries
    unit = channels_in if read == EVERY else 1
    pixels = height_in * width_in + (read != EVERY)
    across = width_in * unit
    leak_ = np.float32(leak)
    for number in range(channels // block):
        rows = weights[number].reshape(-1)
        at = number * block
        for b in range(first, last):
            for t in range(steps):
                fired = 0
                image = t * batch + b
                for i in range(height):
                    top = i * stride - padding
                    low, high = max(0, -top), min(kernel_h, height_in - top)
                    pooled_i = i // pool
                    pooled_j, phase = 0, 0
                    for j in range(width):
                        left = j * stride - padding
                        begin, end = max(left, 0), min(left + kernel_w, width_in)
                        line = (image * pixels + top * width_in + begin) * unit
                        span = (end - begin) * unit
                        # lists number a line's entries from its begin on
                        offset = ((begin if read == EVERY else 0) - left) * channels_in * block
                        here = ((b * height + i) * width + j) * channels + at
                        kept = ((image * height + i) * width + j) * channels + at
                        inside = pooled_i < pooled_h and pooled_j < pooled_w
                        out = ((image * pooled_h + pooled_i) * pooled_w + pooled_j) * channels + at
                        if vectors == 4:
                            if read == EVERY:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 4, EVERY,
                                )  # fmt: skip
                            elif read == ONES:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 4, ONES,
                                )  # fmt: skip
                            else:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 4, VALUES,
                                )  # fmt: skip
                        elif vectors == 2:
                            if read == EVERY:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 2, EVERY,
                                )  # fmt: skip
                            elif read == ONES:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 2, ONES,
                                )  # fmt: skip
                            else:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 2, VALUES,
                                )  # fmt: skip
                        else:
                            if read == EVERY:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 1, EVERY,
                                )  # fmt: skip
                            else:
                                fired += neurons_of_spikes(
                                    x_, ends_, line, across, span, index, value, rows, low, high, offset, step, bias,
                                    theta, at, u_, here, leak_, hard, spikes_, out, inside, pre_, kept, keep, 1, VALUES,
                                )  # fmt: skip
                        phase += 1
                        if phase == pool:
                            phase = 0
                            pooled_j += 1
                counts[t, b] += fired


@njit(nogil=True, cache=True)
def currents_to_neurons(first, last, current, constant, u, theta, leak, hard, pool, spikes, pre, keep, counts):
    """The neurons alone, of currents [T, B, H, W, C], or the same [1, B, H, W, C] at every step where ``constant``."""
    steps = spikes.shape[0]
    batch, height, width, channels = u.shape
    pooled_h, pooled_w = spikes.shape[2], spikes.shape[3]
    current_, u_, spikes_, pre_ = current.reshape(-1), u.reshape(-1), spikes.reshape(-1), pre.reshape(-1)
    leak_ = np.float32(leak)
    for b in range(first, last):
        for t in range(steps):
            fired = 0
            image = t * batch + b
            for i in range(height):
                pooled_i = i // pool
                pooled_j, phase = 0, 0
                for j in range(width):
                    here = ((b * height + i) * width + j) * channels
                    kept = ((image * height + i) * width + j) * channels
                    read = here if constant else kept
                    inside = pooled_i < pooled_h and pooled_j < pooled_w
                    out = ((image * pooled_h + pooled_i) * pooled_w + pooled_j) * channels
                    for n in range(0, channels, LANES):
                        fired += neurons_of_currents(
                            current_, read + n, theta, n, u_, here + n, leak_, hard, spikes_, out + n, inside,
                            pre_, kept + n, keep,
                        )  # fmt: skip
                    phase += 1
                    if phase == pool:
                        phase = 0
                        pooled_j += 1
            counts[t, b] += fired


@njit(nogil=True, cache=True)
def adapt(first, last, block, s, state, rest, decay, forgetting, filter_, out, counts):
    """Adaptive neurons (:mod:`leakbench.snn.adaptive`), ``block`` at a time, which stay in the cache for all steps.

    ``s`` and ``out`` [T, N], ``state`` [4, N] changed in place, ``counts`` [blocks]; all float32 but the counts. The
    loops are apart so that each has few enough arrays to become vector instructions.
    """
    steps, neurons = s.shape
    fired = np.empty(block, np.float32)
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    for k in range(first, last):
        low, high = k * block, min(neurons, (k + 1) * block)
        grown, s_hat = state[0, low:high].copy(), state[1, low:high].copy()
        current, potential = state[2, low:high].copy(), state[3, low:high].copy()
        total = 0
        for t in range(steps):
            s_t, out_t = s[t, low:high], out[t, low:high]
            for n in range(high - low):
                theta, before = grown[n] + rest, s_hat[n] * decay
                spike = one if s_t[n] - before > theta * half else zero
                fired[n] = spike
                s_hat[n] = before + spike * theta
                grown[n] = (grown[n] + rest * (spike * theta)) * forgetting
            for n in range(high - low):
                current[n] = current[n] * decay + fired[n]
                potential[n] += filter_ * (current[n] - potential[n])
                out_t[n] = potential[n]
            for n in range(high - low):
                total += fired[n] != zero
        state[0, low:high], state[1, low:high] = grown, s_hat
        state[2, low:high], state[3, low:high] = current, potential
        counts[k] = total


@njit(nogil=True, cache=True)
def back_through_time(
    first, last, grad_spikes, alike, pool, g, pre, theta, leak, hard, detach, shape, width, height, out, summed
):
    """The neurons' backward pass: from the gradient of their (pooled) output to that of their currents.

    ``grad_spikes`` [T, B, H // pool, W // pool, C], or [1, ...] where ``alike``: the same at every step; ``g``
    [B, H, W, C] the gradient of the last membranes, changed in place to that of the first; ``out`` [T, B, H, W, C] the
    outcome, or, where ``summed``, [1, B, H, W, C], zero before: its sum over steps.
    """
    steps, batch = pre.shape[0], pre.shape[1]
    maps_h, maps_w, channels = pre.shape[2:]
    pooled_h, pooled_w = grad_spikes.shape[2], grad_spikes.shape[3]
    grad_, g_, pre_, out_ = grad_spikes.reshape(-1), g.reshape(-1), pre.reshape(-1), out.reshape(-1)
    inverse = (np.float32(1) / theta).astype(np.float32)
    share, leak_ = np.float32(1 / (pool * pool)), np.float32(leak)
    attached = np.float32(0 if detach else 1)
    narrow, tall = np.float32(1 / width), np.float32(height)
    for b in range(first, last):
        for t in range(steps - 1, -1, -1):
            image = t * batch + b
            from_ = b if alike else image
            for i in range(maps_h):
                pooled_i = min(i // pool, pooled_h - 1)
                pooled_j, phase = 0, 0
                for j in range(maps_w):
                    here = ((b * maps_h + i) * maps_w + j) * channels
                    kept = ((image * maps_h + i) * maps_w + j) * channels
                    to = here if summed else kept
                    inside = i // pool < pooled_h and pooled_j < pooled_w
                    read = ((from_ * pooled_h + pooled_i) * pooled_w + min(pooled_j, pooled_w - 1)) * channels
                    if shape == TRIANGLE:
                        for n in range(0, channels, LANES):
                            back_a_step(
                                pre_, kept + n, inverse, n, grad_, read + n, inside, share, g_, here + n, leak_, hard,
                                attached, narrow, tall, out_, to + n, summed, TRIANGLE,
                            )  # fmt: skip
                    elif shape == RECTANGLE:
                        for n in range(0, channels, LANES):
                            back_a_step(
                                pre_, kept + n, inverse, n, grad_, read + n, inside, share, g_, here + n, leak_, hard,
                                attached, narrow, tall, out_, to + n, summed, RECTANGLE,
                            )  # fmt: skip
                    elif shape == FAST_SIGMOID:
                        for n in range(0, channels, LANES):
                            back_a_step(
                                pre_, kept + n, inverse, n, grad_, read + n, inside, share, g_, here + n, leak_, hard,
                                attached, narrow, tall, out_, to + n, summed, FAST_SIGMOID,
                            )  # fmt: skip
                    elif shape == FIRED:
                        for n in range(0, channels, LANES):
                            back_a_step(
                                pre_, kept + n, inverse, n, grad_, read + n, inside, share, g_, here + n, leak_, hard,
                                attached, narrow, tall, out_, to + n, summed, FIRED,
                            )  # fmt: skip
                    else:
                        for n in range(0, channels, LANES):
                            back_a_step(
                                pre_, kept + n, inverse, n, grad_, read + n, inside, share, g_, here + n, leak_, hard,
                                attached, narrow, tall, out_, to + n, summed, ARCTAN,
                            )  # fmt: skip
                    phase += 1
                    if phase == pool:
                        phase = 0
                        pooled_j += 1


@njit(nogil=True, cache=True)
def events_to_weights(
    first, last, group, width_in, channels_in, kernel_h, kernel_w, padding, ends, index, value, weighted,
    grad, vectors, out,
):  # fmt: skip
    """The gradient of a convolution's weights (stride 1) from listed spikes and that of its output.

    ``grad`` [T, B, H, W, C]; ``out`` [KH * KW, C_in, C], added to. ``group`` maps at a time are copied to frames of
    zeros that stay in the cache, a block of channels after the other; the spikes of these maps are listed by input
    channel, and each place of the kernel sums the gradients that they met.
    """
    steps, _, height, width, channels = grad.shape
    pad_h, pad_w = kernel_h - 1 - padding, kernel_w - 1 - padding
    framed_h, framed_w = height + 2 * pad_h, width + 2 * pad_w
    block = vectors * LANES
    maps = (last - first) * steps
    group = min(group, maps)
    frame = np.zeros(group * framed_h * framed_w * block, np.float32)
    slots = np.zeros(channels_in + 1, np.int64)
    cursor = np.empty(channels_in, np.int64)
    pixels = ends.shape[2] - 1
    out_ = out.reshape(-1)
    most = 0
    for n0 in range(0, maps, group):
        total = 0
        for n in range(n0, min(n0 + group, maps)):
            b, t = first + n // steps, n % steps
            total += ends[t, b, pixels] - ends[t, b, 0]
        most = max(most, total)
    places = np.empty(max(most, 1), np.int32)
    values = np.empty(max(most, 1), np.float32)
    for n0 in range(0, maps, group):
        n1 = min(n0 + group, maps)
        slots[:] = 0
        for n in range(n0, n1):
            b, t = first + n // steps, n % steps
            for p in range(pixels):
                shift = p % width_in * channels_in
                for e in range(ends[t, b, p], ends[t, b, p + 1]):
                    slots[index[e] - shift + 1] += 1
        for c in range(channels_in):
            slots[c + 1] += slots[c]
            cursor[c] = slots[c]
        for n in range(n0, n1):
            b, t = first + n // steps, n % steps
            for p in range(pixels):
                i, j = p // width_in, p % width_in
                spot = ((n - n0) * framed_h + i + kernel_h - 1) * framed_w + j + kernel_w - 1
                for e in range(ends[t, b, p], ends[t, b, p + 1]):
                    c = index[e] - j * channels_in
                    places[cursor[c]] = spot
                    values[cursor[c]] = value[e]
                    cursor[c] += 1
        for number in range(channels // block):
            at = number * block
            for n in range(n0, n1):
                b, t = first + n // steps, n % steps
                for i in range(height):
                    for j in range(width):
                        to = (((n - n0) * framed_h + i + pad_h) * framed_w + j + pad_w) * block
                        frame[to : to + block] = grad[t, b, i, j, at : at + block]
            for c in range(channels_in):
                start, stop = slots[c], slots[c + 1]
                if start == stop:
                    continue
                for ki in range(kernel_h):
                    for kj in range(kernel_w):
                        to = ((ki * kernel_w + kj) * channels_in + c) * channels + at
                        offset = -(ki * framed_w + kj) * block
                        if vectors == 4:
                            if weighted:
                                add_rows(out_, to, frame, places, values, start, stop, block, offset, 4, True)
                            else:
                                add_rows(out_, to, frame, places, values, start, stop, block, offset, 4, False)
                        elif vectors == 2:
                            add_rows(out_, to, frame, places, values, start, stop, block, offset, 2, True)
                        else:
                            add_rows(out_, to, frame, places, values, start, stop, block, offset, 1, True)


@njit(nogil=True, cache=True)
def maps_to_points(first, last, begin, maps, padding, whole, rows, columns, points):
    """Tiles begin + first ... begin + last - 1 of maps [N, H, W, C] to Winograd's points [36, tiles, C].

    A map has rows * columns tiles. Tile (r, c) is the patch of side 6 at (4r - padding, 4c - padding) or, where not
    ``whole``, the square of side 4 at (4r, 4c).
    """
    _, height, width, channels = maps.shape
    step = points.shape[1] * channels
    maps_, points_ = maps.reshape(-1), points.reshape(-1)
    for k in range(first, last):
        n, rest = divmod(begin + k, rows * columns)
        r, c = divmod(rest, columns)
        at = n * height * width * channels
        for channel in range(0, channels, LANES):
            to = k * channels + channel
            if whole:
                i, j = OUTPUT * r - padding, OUTPUT * c - padding
                to_points(maps_, at + channel, i, j, height, width, channels, points_, to, step, PATCH)
            else:
                i, j = OUTPUT * r, OUTPUT * c
                to_points(maps_, at + channel, i, j, height, width, channels, points_, to, step, OUTPUT)


@njit(nogil=True, cache=True)
def points_to_maps(first, last, begin, points, rows, columns, maps):
    """The way back: the squares of side 4 of tiles begin + first ... begin + last - 1 to maps [N, H, W, C]."""
    _, height, width, channels = maps.shape
    step = points.shape[1] * channels
    maps_, points_ = maps.reshape(-1), points.reshape(-1)
    for k in range(first, last):
        n, rest = divmod(begin + k, rows * columns)
        r, c = divmod(rest, columns)
        at = n * height * width * channels
        for channel in range(0, channels, LANES):
            i, j = OUTPUT * r, OUTPUT * c
            from_points(points_, k * channels + channel, step, maps_, at + channel, i, j, height, width, channels)
