"""Pair rules times objectives, several seeds each, at equal numbers of pairs: what does each contribute?"""
