"""Preference training of generators: losses, latents and the trainer."""
