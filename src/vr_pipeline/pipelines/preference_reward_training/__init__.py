"""Train a VideoReward on people's labels of pairs of clips."""
