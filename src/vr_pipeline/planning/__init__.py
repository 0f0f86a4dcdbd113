"""What a run will cost, before it runs: work, GPU time, memory and disk, by formulas that load no model."""
