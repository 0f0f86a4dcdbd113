"""What all rounds of online training need: weights of the reward, text conditions, and the judging of checkpoints."""
