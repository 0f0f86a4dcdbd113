"""Files: atomic replacement, tables, tensors, model folders, folders of items."""
