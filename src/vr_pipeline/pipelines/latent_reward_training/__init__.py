"""Train a reward of noised latents on labelled pairs of clips."""
