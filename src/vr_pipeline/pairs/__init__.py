"""Pairs of clips to train on, from rewards."""
