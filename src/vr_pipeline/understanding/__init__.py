"""DPO of vision-language models: questions about clips, candidate responses, their judgement, pairs, training, test."""
