"""Training of a UnifiedReward: cross entropy of answers to items of several tasks."""
