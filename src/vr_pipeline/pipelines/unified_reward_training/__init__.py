"""Train a UnifiedReward on labelled items of several tasks."""
