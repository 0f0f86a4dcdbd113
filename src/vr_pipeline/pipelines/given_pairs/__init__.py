"""Prepare existing pairs: decide winners, fit clips to the generator, hold out prompts."""
