"""VideoReward: scores in several dimensions by a vision-language model with a linear head, trained on pairs."""
