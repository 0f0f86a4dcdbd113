"""Measure any rewards on any human preferences."""
