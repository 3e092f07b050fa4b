"""Data sets: what a private training set may be, and where it comes from."""

from leakbench.data.catalogue import (
    availability,
    check_dataset,
    dataset_label,
    dataset_names,
    default_data_folder,
    grid_defaults,
    half_names,
    load_dataset,
)
from leakbench.data.dataset import Arrays, Availability, Dataset, Split, make_dataset
from leakbench.data.half import base_name
from leakbench.data.public import public_images, public_source
from leakbench.data.third_party import from_torchvision

__all__ = [
    "Arrays",
    "Availability",
    "Dataset",
    "Split",
    "availability",
    "base_name",
    "check_dataset",
    "dataset_label",
    "dataset_names",
    "default_data_folder",
    "from_torchvision",
    "grid_defaults",
    "half_names",
    "load_dataset",
    "make_dataset",
    "public_images",
    "public_source",
]
