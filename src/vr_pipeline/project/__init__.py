"""The project folder: configuration, template, errors explained to people."""
