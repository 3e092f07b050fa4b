"""The fixtures of the tests that compute cells."""

from bench_fixtures import apart, digits_store, warm

__all__ = ["apart", "digits_store", "warm"]
