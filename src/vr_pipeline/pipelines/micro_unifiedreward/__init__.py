"""Make the embedded UnifiedReward: simulated labels of pairs and single clips, training from the judge, a test."""
