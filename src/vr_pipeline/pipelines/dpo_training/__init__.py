"""Preference training of the generator, once for each recipe."""
