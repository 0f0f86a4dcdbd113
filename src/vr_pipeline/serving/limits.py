"""Limits of a reward server."""

from __future__ import annotations

from pydantic import Field

from vr_pipeline.config import Parameters

MEBIBYTE = 1 << 20


class ServingLimits(Parameters):
    """Limits of a server; each is an option of ``kedro serve``.

    Memory is bounded by them: ``waiting`` bodies, and the frames of ``2 * batch`` clips.
    """

    batch: int = Field(8, ge=1, le=1024, description="Clips per batch.")
    waiting: int = Field(64, ge=1, le=10_000, description="Concurrent requests; further ones get status 429.")
    timeout: float = Field(60.0, gt=0, le=3600, description="Seconds until a request gets status 504.")
    max_mebibytes: int = Field(16, ge=1, le=2048, description="MiB of a request, including clips in base64.")
    max_frames: int = Field(10_000, ge=1, description="Frames of a clip.")
    max_megapixels: int = Field(50, ge=1, description="Million pixels over all frames that the reward reads.")
    readers: int = Field(2, ge=1, le=256, description="Threads that decode clips.")

    @property
    def max_bytes(self) -> int:
        """Return the maximum size of a request in bytes."""
        return self.max_mebibytes * MEBIBYTE

    def reading(self, configured: dict[str, object]) -> dict[str, object]:
        """Return the settings of reading.yml, tightened to these limits."""
        pixels = self.max_megapixels * 1_000_000
        own = {"max_clip_frames": self.max_frames, "max_clip_pixels": pixels, "max_frame_pixels": pixels}
        return {**configured, **{name: min(limit, int(str(configured[name]))) for name, limit in own.items()}}
