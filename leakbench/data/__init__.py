"""Data sets: what a private training set may be, and where it comes from."""

from leakbench.data.catalogue import availability, dataset_names, default_data_folder, load_dataset
from leakbench.data.dataset import Availability, Dataset, Split

__all__ = [
    "Availability",
    "Dataset",
    "Split",
    "availability",
    "dataset_names",
    "default_data_folder",
    "load_dataset",
]
