"""VisionReward end to end: interpretable checklist rewards and multi-dimensional preference optimisation."""

__version__ = "0.1.0"
