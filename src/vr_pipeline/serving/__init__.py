"""Rewards for other programs: as a web service (``kedro serve``), and as an MLflow model."""
