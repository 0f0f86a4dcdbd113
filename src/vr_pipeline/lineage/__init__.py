"""The origin of a result: code, data, settings, packages and machine."""
