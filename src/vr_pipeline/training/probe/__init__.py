"""A probe before a training: a few dozen steps on a grid of learning rates and betas; what helps, what breaks."""
