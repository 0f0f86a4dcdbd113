"""Kedro dataset classes of our own, for what the stock ones cannot keep."""
