"""Counts of a server in the text form of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of request times, in seconds."""


class Metrics:
    """Counts of a server since its start. Only for the event loop's thread."""

    def __init__(self) -> None:
        self.in_progress = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._times: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._batches, self._clips = 0, 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests[path, status] += 1
        self._times[path, bisect_left(BOUNDS, seconds)] += 1
        self._seconds[path] += seconds  # type: ignore[assignment]

    def batch(self, size: int) -> None:
        """Count a processed batch."""
        self._batches += 1
        self._clips += size

    def text(self) -> str:
        """Return all counts."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _head("vr_requests_total", "counter", "Requests by path and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'vr_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("vr_request_seconds", "histogram", "Time from a request's head to the end of its answer.")
        for path in sorted({path for path, _ in self._times}):
            total = 0
            for place, bound in enumerate((*map(str, BOUNDS), "+Inf")):
                total += self._times[path, place]
                yield f'vr_request_seconds_bucket{{path="{path}",le="{bound}"}} {total}'
            yield f'vr_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}'
            yield f'vr_request_seconds_count{{path="{path}"}} {total}'
        for name, kind, value, meaning in (
            ("vr_requests_in_progress", "gauge", self.in_progress, "Requests being received, scored or answered."),
            ("vr_batches_total", "counter", self._batches, "Batches processed by the model."),
            ("vr_scored_total", "counter", self._clips, "Clips and comparisons in these batches."),
        ):
            yield from _head(name, kind, meaning)
            yield f"{name} {value}"


def _head(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"
