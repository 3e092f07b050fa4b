"""A noisy conversion, a random search, a metric, a model and a data set for LeakBench."""
