"""Leaderboards: entries that others can check, submit and break, and the tables that they stand in."""
