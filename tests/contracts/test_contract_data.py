"""The ledger of private images."""

from __future__ import annotations

import torch
from tiny_plugins import SHAPE, training_data


def test_training_data_counts_every_image_that_it_hands_out() -> None:
    data = training_data()
    assert (len(data), data.images_read, data.reads) == (10, 0, 0)
    images, labels = data.sample(4, torch.Generator().manual_seed(0))
    assert (data.images_read, data.reads) == (4, 4)
    read = data.read_mask
    assert read.dtype == torch.bool and (read.nonzero().squeeze(1) * 2).tolist() == sorted(labels.tolist())
    read.zero_()  # a copy
    assert data.images_read == 4
    # floats in [0, 1], each with its own label, none twice
    assert images.shape == (4, *SHAPE) and images.dtype == torch.float32
    assert labels.tolist() == (images[:, 0, 0, 0] * 255 * 2).round().long().tolist()
    assert len(set(labels.tolist())) == 4
    data.sample(4, torch.Generator().manual_seed(0))
    assert (data.images_read, data.reads) == (4, 8)
    everything, _ = data.sample(99, torch.Generator())
    assert len(everything) == 10
    assert (data.images_read, data.reads) == (10, 18)


def test_a_pass_in_batches_is_every_image_once_and_counted_as_it_is_read() -> None:
    data = training_data()
    batches = data.batches(4, torch.Generator().manual_seed(0))
    assert data.images_read == 0  # asking for a pass reads nothing
    first, _ = next(batches)
    assert (len(first), data.images_read) == (4, 4)
    labels = [label for _, labels in data.batches(4, torch.Generator()) for label in labels.tolist()]
    assert sorted(labels) == list(range(0, 20, 2))
    assert (data.images_read, data.reads) == (10, 14)
