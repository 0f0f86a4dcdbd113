"""The commands of ``kedro``."""
