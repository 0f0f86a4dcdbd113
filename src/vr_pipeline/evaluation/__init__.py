"""Evaluation of policies on held-out prompts: clips, rewards by judge and oracle, metrics, report page."""
