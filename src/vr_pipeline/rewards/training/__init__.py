"""Shared code to train rewards on vision-language models: clips, parts of the model, split."""
