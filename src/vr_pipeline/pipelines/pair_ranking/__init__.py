"""Compare pairs of clips of a prompt with a model that sees both."""
