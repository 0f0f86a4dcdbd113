"""Training whatever the model: loop, optimiser, checkpoints, groups of processes."""
