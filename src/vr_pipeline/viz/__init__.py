"""The pipelines in Kedro-Viz."""
