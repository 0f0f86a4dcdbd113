"""Compare policies on held-out prompts, by the judge, and by oracle and auditor if they exist."""
