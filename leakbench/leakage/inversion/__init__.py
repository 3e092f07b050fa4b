"""Leakage of classes: pictures of the classes that an attack draws out of a deployed network."""
