"""Leakage of data: who was in the training set."""
