"""Rewards of clips behind one contract: the checklist's linear reward, tables of scores, ensembles."""
