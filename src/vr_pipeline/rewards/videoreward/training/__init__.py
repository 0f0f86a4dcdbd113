"""From people's labels of pairs of clips to a VideoReward."""
