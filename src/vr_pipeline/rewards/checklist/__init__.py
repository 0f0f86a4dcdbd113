"""Rewards from the answers to a checklist: linear weights, their fit, tables."""
