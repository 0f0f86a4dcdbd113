"""A probe before training: a few dozen steps on a grid of learning rates and betas."""
