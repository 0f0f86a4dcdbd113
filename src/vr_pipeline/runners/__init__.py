"""Where nodes run: see :mod:`vr_pipeline.runners.device_runner`.

The runner is loaded when it is first used: a Ray worker that only makes items of a node loads its module from this
package and needs neither Kedro nor the hooks, which take longer to import than Ray.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vr_pipeline.runners.device_runner import DeviceRunner

__all__ = ["DeviceRunner"]


def __getattr__(name: str) -> Any:
    """Load the runner (PEP 562)."""
    if name == "DeviceRunner":
        from vr_pipeline.runners.device_runner import DeviceRunner

        return DeviceRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
