"""Make the embedded default: tiny models, an oracle and simulated preferences."""
