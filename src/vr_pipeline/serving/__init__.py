"""The reward model as an MLflow model."""
