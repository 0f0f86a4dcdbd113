"""UnifiedReward: one vision-language model that ranks pairs and scores single items (Wang et al. 2025)."""
