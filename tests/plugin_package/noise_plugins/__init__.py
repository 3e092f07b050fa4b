"""A noisy conversion, a random search, a model and a data set for LeakBench."""
