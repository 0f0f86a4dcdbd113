"""One round of online training: clips of the last policy, rewards, pairs, and a policy trained on them."""
