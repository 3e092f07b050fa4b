"""The fixtures of the tests that compute cells."""

from bench_fixtures import apart, warm

__all__ = ["apart", "warm"]
