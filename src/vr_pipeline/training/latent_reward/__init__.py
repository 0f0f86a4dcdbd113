"""Trains a reward of noised latents on pairs of clips."""
