"""ANN architectures and their training, the judges, and networks to and from tensors."""

from leakbench.models.catalogue import (
    Architecture,
    has_batch_norm,
    model_depth,
    model_identity,
    model_label,
    model_names,
    pinned_model,
)

__all__ = [
    "Architecture",
    "has_batch_norm",
    "model_depth",
    "model_identity",
    "model_label",
    "model_names",
    "pinned_model",
]
