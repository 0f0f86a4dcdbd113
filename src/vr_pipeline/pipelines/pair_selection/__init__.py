"""Select training pairs by rewards, with one rule per recipe."""
