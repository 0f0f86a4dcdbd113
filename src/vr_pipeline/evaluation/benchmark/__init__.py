"""Benchmark of rewards on human preferences: a table, paired differences, and a leaderboard."""
