"""The fixtures of the tests that compute cells."""

from bench_fixtures import apart, short_lessons, warm

__all__ = ["apart", "short_lessons", "warm"]
