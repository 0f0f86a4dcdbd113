"""Train a vision-language model by DPO: candidate responses, their judgement, pairs, training and test."""
