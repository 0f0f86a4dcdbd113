"""The training engine for any model: loop, optimiser, checkpoints, groups of processes."""
