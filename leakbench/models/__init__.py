"""ANN architectures and their training, the judges, and networks to and from tensors."""

from leakbench.models.storage import build_ann, load_ann, load_checkpoint, load_network, model_names, save_network
from leakbench.models.training import Recipe, train

__all__ = [
    "Recipe",
    "build_ann",
    "load_ann",
    "load_checkpoint",
    "load_network",
    "model_names",
    "save_network",
    "train",
]
