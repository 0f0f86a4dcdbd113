"""Training of a VideoReward on human labels of pairs of clips."""
