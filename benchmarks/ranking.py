"""All comparisons and points of a prompt's candidates behind shared clips, against one call a pair and order.

    python benchmarks/ranking.py                    # a mid-size random Qwen2-VL on the CPU, float32, ten clips
    python benchmarks/ranking.py --device cuda      # Qwen2-VL-2B's size, bfloat16, on a GPU

Ten clips of one prompt are compared in both orders, neighbours only or all with all, and every clip gets points in
five lines. One way encodes both clips and reads the whole request anew in each call, a call a pair and order, a call a
line of points, as the public scripts do. Ours encodes a clip once, and reads once what requests begin with. Both read
the log-likelihood of the same whole answers, which stand behind a request as a tree in both (the public scripts
generate text instead, which takes longer). What resizes frames is part of both.

The other way is timed on a few calls of each kind and scaled to all. CPU seconds of the process are compared on a CPU,
so that what else the machine does matters less; wall seconds are reported too. The share of the answers is the time
with all answers less the time with none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from checklist import SIZES, make_judge
from on_device import parsed, parser_of

HEAD = (
    "you are shown videos that were made for one text . look at every frame from first to last : is what the text asks"
    " for there , is the movement natural and steady , and is the picture sharp and free of errors ? the text : "
)
PROMPT = "a red fox runs through deep snow while the camera follows it from the side at dawn"
FIRST, SECOND, ONE = " the first video : ", " the second video : ", " the video : "
ASK_PAIR = " which of the two is better ?"
ANSWERS = ("the first video is better", "the second video is better", "both videos are equally good")
LINES = ("quality", "movement", "steadiness", "errors", "text")


@dataclass(frozen=True)
class Seconds:
    """What a call took."""

    wall: float
    cpu: float


class Tasks:
    """Requests about the candidates of one prompt."""

    def __init__(self, family: Any, clips: int) -> None:
        from vr_pipeline.judges.training.tiny import END

        self.family, self.keys = family, [f"clip {number}" for number in range(clips)]
        self.end = family.text_ids(END)

    def text(self, text: str) -> tuple[int, ...]:
        """Tokens of a piece of text."""
        return tuple(self.family.text_ids(text))

    def answer(self, text: str) -> tuple[int, ...]:
        """Tokens of a whole answer."""
        return (*self.text(text), *self.end)

    def pairs(self, *, every: bool) -> list[Any]:
        """Neighbours, or all with all, in both orders."""
        from vr_pipeline.vlm.media import Request

        chosen = itertools.combinations(self.keys, 2) if every else itertools.pairwise(self.keys)
        orders = [order for pair in chosen for order in (pair, pair[::-1])]
        head, second, ask = self.text(HEAD + PROMPT + FIRST), self.text(SECOND), self.text(ASK_PAIR)
        answers = tuple(self.answer(text) for text in ANSWERS)
        return [Request((head, first, second, other, ask), answers) for first, other in orders]

    def points(self) -> list[Any]:
        """Five lines a clip: four from 1 to 5, one from 0 to 100."""
        from vr_pipeline.vlm.media import Request

        head, five = self.text(HEAD + PROMPT + ONE), [self.answer(str(number)) for number in range(1, 6)]
        hundred = [self.answer(" ".join(str(number))) for number in range(101)]
        return [
            Request((head, key, self.text(f" {line} :")), tuple(hundred if line == LINES[-1] else five))
            for key in self.keys
            for line in LINES
        ]


def make_family(size: str, device: str, pixels: tuple[int, int]) -> Any:
    """A random model with a tokenizer that knows the texts."""
    digits = " ".join(map(str, range(10)))
    texts = [HEAD, PROMPT, FIRST, SECOND, ONE, ASK_PAIR, digits, *ANSWERS, *LINES]
    family = make_judge(size, device, texts, 1).family
    family.settings = family.settings.model_copy(update={"height": pixels[0], "width": pixels[1]})
    return family


def timed(run: Callable[[], Any], device: str) -> tuple[Any, Seconds]:
    """A call's result and what it took."""
    import torch

    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return found, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def middle(times: Sequence[Seconds], device: str) -> float:
    """The median: of CPU seconds on a CPU."""
    return statistics.median(one.wall if device == "cuda" else one.cpu for one in times)


class Ways:
    """Both ways of reading requests; clips are resized and cut anew in each call."""

    def __init__(self, family: Any, clips: dict[str, np.ndarray], batch: int) -> None:
        self.family, self.clips, self.batch = family, clips, batch

    def visuals(self, keys: Sequence[str]) -> dict[str, Any]:
        """The clips of some keys."""
        return {key: self.family.visual(self.clips[key], 2.0) for key in keys}

    def shared(self, requests: Sequence[Any]) -> list[np.ndarray]:
        """All requests at once."""
        from vr_pipeline.vlm.likelihood import SharedReader

        return SharedReader(self.family, self.visuals(list(self.clips)), batch=self.batch).read(requests)

    def alone(self, request: Any) -> np.ndarray:
        """One request in a call of its own."""
        from vr_pipeline.vlm.likelihood import log_likelihoods

        visuals = self.visuals([piece for piece in request.pieces if isinstance(piece, str)])
        return log_likelihoods(self.family, visuals, [request])[0].double().sum(dim=1).cpu().numpy()


def sampled(requests: Sequence[Any], count: int) -> list[int]:
    """Numbers of some of the requests, evenly spread."""
    return sorted({int(at) for at in np.linspace(0, len(requests) - 1, count).round()})


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one model."""
    import torch

    from vr_pipeline.runtime.memory import peak_memory

    device, size = arguments.device, arguments.size
    pixels = SIZES[size]["pixels"] if device == "cuda" else (168, 224)
    family = make_family(size, device, pixels)
    random = np.random.default_rng(0)
    tasks = Tasks(family, arguments.clips)
    clips = {key: random.integers(0, 256, (arguments.frames, *pixels, 3), dtype=np.uint8) for key in tasks.keys}
    ways = Ways(family, clips, arguments.batch)
    kinds = {"neighbours": tasks.pairs(every=False), "all pairs": tasks.pairs(every=True), "points": tasks.points()}
    together = {"neighbours and points": ("neighbours", "points"), "all pairs and points": ("all pairs", "points")}

    times: dict[str, list[Seconds]] = {}
    found: dict[str, list[np.ndarray]] = {}

    def note(name: str, run: Callable[[], Any]) -> Any:
        result, took = timed(run, device)
        times.setdefault(name, []).append(took)
        return result

    with torch.inference_mode():
        ways.shared(kinds["points"][: len(LINES)])  # Warms up.
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(arguments.repeats):
            for name, parts in together.items():
                requests = [request for part in parts for request in kinds[part]]
                found[name] = note(name, partial(ways.shared, requests))
        first = [request for part in together["neighbours and points"] for request in kinds[part]]
        without = [replace(request, answers=()) for request in first]
        for _ in range(arguments.repeats):
            note("without answers", lambda: ways.shared(without))
            visuals = note("resizing and patches", lambda: list(ways.visuals(tasks.keys).values()))
            note("vision tower", partial(family.vision_features, visuals))
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()
        alone, difference = {}, 0.0
        for kind, requests in kinds.items():
            whole = "all pairs and points" if kind == "all pairs" else "neighbours and points"
            offset = len(kinds["neighbours"]) if kind == "points" else 0
            numbers = sampled(requests, arguments.sampled)
            for number in numbers:
                expected = note(kind, partial(ways.alone, requests[number]))
                difference = max(difference, float(np.abs(found[whole][offset + number] - expected).max()))
            alone[kind] = middle(times[kind], device) * len(requests)

    weights = {
        "vision tower": sum(weight.numel() for weight in family.model.model.visual.parameters()),
        "language model": sum(weight.numel() for weight in family.model.model.language_model.parameters()),
    }
    visual = len(visuals[0].token_ids)
    print(f"model: {size} on {device}, {SIZES[size]['dtype']}, threads {torch.get_num_threads()}", end="")
    print("".join(f", {name} {count / 1e6:.0f} M parameters" for name, count in weights.items()))
    print(f"{len(clips)} clips of {arguments.frames} frames, {visual} tokens each; ", end="")
    print(", ".join(f"{len(requests)} {kind}" for kind, requests in kinds.items()))
    print(f"{'':<28} {'ours':>9} {'a call each':>12} {'ratio':>6}   in {'wall' if device == 'cuda' else 'CPU'} seconds")
    ratios, seconds = {}, {}
    for name, parts in together.items():
        seconds[name], theirs = middle(times[name], device), sum(alone[part] for part in parts)
        ratios[name] = theirs / seconds[name]
        print(f"{name:<28} {seconds[name]:9.2f} {theirs:12.2f} {ratios[name]:6.2f}")
    ours = seconds["neighbours and points"]
    # Where one call gives the points of a clip in all lines.
    in_one_call = (alone["neighbours"] + alone["points"] / len(LINES)) / ours
    preparing, vision = (middle(times[name], device) for name in ("resizing and patches", "vision tower"))
    answers = max(ours - middle(times["without answers"], device), 0.0)
    shares = {"preparing": preparing, "vision": vision, "answers": answers}
    shares["prefill"] = max(ours - sum(shares.values()), 0.0)
    print("shares of neighbours and points: ", end="")
    print(", ".join(f"{name} {part / ours:.2f}" for name, part in shares.items()))
    spread = float(np.std([sums[0] - sums[1] for sums in found["all pairs and points"][: len(kinds["all pairs"])]]))
    print(f"largest difference of a log-likelihood {difference:.1e} (first less second varies by {spread:.1e})")
    return {
        "ratio": round(ratios["neighbours and points"], 2),
        "ratio_all_pairs": round(ratios["all pairs and points"], 2),
        "ratio_points_in_one_call": round(in_one_call, 2),
        "seconds": round(ours, 3),
        "seconds_all_pairs": round(seconds["all pairs and points"], 3),
        "wall_seconds": round(statistics.median(one.wall for one in times["neighbours and points"]), 3),
        "peak_mb": round(peak / 2**20),
        **{f"share_{name}": round(part / ours, 3) for name, part in shares.items()},
        "max_difference": difference,
        "visual_tokens": visual,
        "clips": len(clips),
        "requests": {kind: len(requests) for kind, requests in kinds.items()},
        "sampled": arguments.sampled,
        "repeats": arguments.repeats,
        "size": size,
        "dtype": SIZES[size]["dtype"],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


def main() -> None:
    parser = parser_of(__doc__, SIZES)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16, help="rows that ours reads at a time")
    parser.add_argument("--sampled", type=int, default=5, help="calls of each kind on which the other way is timed")
    parser.add_argument("--repeats", type=int, default=3)
    print(json.dumps(measure(parsed(parser))))


if __name__ == "__main__":
    main()
