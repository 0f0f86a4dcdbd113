"""Compare policies on held-out prompts, by the judge and by an oracle if there is one."""
