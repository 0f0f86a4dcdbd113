"""VideoReward: scores by dimension from a vision-language model with a linear head, trained on pairs."""
