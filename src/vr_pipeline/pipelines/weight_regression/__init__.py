"""Fit weights of the checklist's questions to human preferences, test them on held-out prompts, and score clips."""
