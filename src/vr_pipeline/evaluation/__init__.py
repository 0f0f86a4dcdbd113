"""Comparing policies on held-out prompts: clips, rewards by judge and oracle, metrics and the report page."""
