"""Make the embedded VideoReward: simulated labels by criterion, training from the judge, and a test."""
