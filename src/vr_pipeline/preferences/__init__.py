"""What people prefer: formats, labels, the clips that they compared."""
