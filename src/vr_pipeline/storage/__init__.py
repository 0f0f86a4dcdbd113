"""Files: atomic replacement, tables, tensors, model folders."""
