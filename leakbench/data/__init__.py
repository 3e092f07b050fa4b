"""Data sets: what a private training set may be, and where it comes from."""

from leakbench.data.catalogue import (
    availability,
    check_dataset,
    dataset_names,
    default_data_folder,
    half_names,
    load_dataset,
)
from leakbench.data.dataset import Availability, Dataset, Split
from leakbench.data.half import base_name
from leakbench.data.public import public_images, public_source

__all__ = [
    "Availability",
    "Dataset",
    "Split",
    "availability",
    "base_name",
    "check_dataset",
    "dataset_names",
    "default_data_folder",
    "half_names",
    "load_dataset",
    "public_images",
    "public_source",
]
