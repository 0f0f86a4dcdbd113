"""What a result was made from: code, data, settings, packages and machine."""
