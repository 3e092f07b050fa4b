"""A noisy conversion and a random search for LeakBench."""
