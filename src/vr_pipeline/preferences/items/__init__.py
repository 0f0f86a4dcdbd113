"""Labelled items: human labels of clips, pairs of clips and responses, from several file formats."""
