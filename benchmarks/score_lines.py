"""The five lines of a video's score, read ahead behind one question, against a pass over the question a line.

    python benchmarks/score_lines.py                # a mid-size random Qwen2-VL on the CPU, float32
    python benchmarks/score_lines.py --device cuda  # Qwen2-VL-2B's size, bfloat16, on a GPU

Lines of one answer stand behind each other, each with the most likely values of those before it (UnifiedReward's five
dimensions of a video, 1 to 4). Read in turn that is five passes over clip and question. Read ahead, a line is read for
every value that the lines before it in the same pass may turn out to have. Both go through the vision tower once.
"""

from __future__ import annotations

import argparse
import json
from typing import Any
from unittest.mock import patch

import numpy as np

from checklist import SIZES
from on_device import parsed, parser_of
from ranking import HEAD, LINES, PROMPT, Seconds, make_family, middle, timed

WAYS = "vr_pipeline.rewards.unifiedreward.lines.READ_AHEAD"


def template() -> Any:
    """Five lines from 1 to 4 in the words that the model knows."""
    from vr_pipeline.judges.training.tiny import END
    from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate

    lines = [{"dimension": name, "before": f"{name} : ", "after": " , ", "low": 1, "high": 4} for name in LINES]
    point = {"text": f"{HEAD} [[clip]] [[prompt]]", "lines": lines}
    return UnifiedTemplate.model_validate({"name": "lines", "end": END, "video_generation": {"point": point}})


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one model."""
    from vr_pipeline.rewards.unifiedreward.reading import ClipReader, Point
    from vr_pipeline.video.sampled import SampledClip

    device, size = arguments.device, arguments.size
    pixels = SIZES[size]["pixels"] if device == "cuda" else (168, 224)
    family, asked = make_family(size, device, pixels), template()
    random = np.random.default_rng(0)
    shape = (arguments.frames, *pixels, 3)
    clips = {
        str(number): SampledClip(str(number), PROMPT, random.integers(0, 256, shape, dtype=np.uint8), [], 2.0)
        for number in range(arguments.clips)
    }

    def score() -> list[Any]:
        found = []
        for name, clip in clips.items():
            found += ClipReader(family, asked, {name: clip}).points("video_generation", [Point(name, PROMPT)])
        return found

    ways = {"ahead": 16, "in turn": 0}
    times: dict[str, list[Seconds]] = {name: [] for name in ways}
    totals = {}
    score()  # Warms up.
    for _ in range(arguments.repeats):
        for name, count in ways.items():
            with patch(WAYS, count):
                found, took = timed(score, device)
            times[name].append(took)
            totals[name] = np.array([one.total for one in found])
    seconds = {name: middle(of_way, device) / arguments.clips for name, of_way in times.items()}
    difference = float(np.abs(totals["ahead"] - totals["in turn"]).max())
    visual = len(family.visual(clips["0"].frames, 2.0).token_ids)
    print(
        f"{arguments.clips} clips of {visual} tokens, {len(family.text_ids(HEAD + PROMPT))} tokens of text, five lines"
    )
    for name, value in seconds.items():
        print(f"{name:<8} {value:7.3f} {'wall' if device == 'cuda' else 'CPU'} seconds a clip")
    return {
        "ratio": round(seconds["in turn"] / seconds["ahead"], 2),
        "seconds": round(seconds["ahead"], 3),
        "seconds_in_turn": round(seconds["in turn"], 3),
        "max_difference": difference,
        "clips": arguments.clips,
        "repeats": arguments.repeats,
        "size": size,
        "device": device,
    }


def main() -> None:
    parser = parser_of(__doc__, SIZES)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    print(json.dumps(measure(parsed(parser))))


if __name__ == "__main__":
    main()
