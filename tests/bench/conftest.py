"""The fixtures of the tests that compute cells."""

from bench_fixtures import apart, own_registry, warm

__all__ = ["apart", "own_registry", "warm"]
