"""Where nodes run: see :mod:`vr_pipeline.runners.device_runner`."""

from vr_pipeline.runners.device_runner import DeviceRunner

__all__ = ["DeviceRunner"]
