"""VisionReward end to end: interpretable checklist rewards and multi-dimensional preference optimisation."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vr_pipeline")
except PackageNotFoundError:  # used from a folder of sources that was never installed
    __version__ = "0+unknown"
