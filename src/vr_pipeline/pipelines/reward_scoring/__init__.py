"""Score clips by any reward of the registry; a stopped run resumes at the next clip."""
