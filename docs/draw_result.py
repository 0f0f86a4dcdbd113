"""Draws docs/images/result.gif: clips before and after training, and what the trainings gained, from a finished demo.

Run it in the project's folder after ``make demo``: ``python docs/draw_result.py``. Prompts are chosen by a hash of
their identifiers, as in the report, and the first seed of each is shown: not by how the clips came out.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from vr_pipeline.identifiers import content_hash
from vr_pipeline.video.read import read_frames

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs/images/result.gif"
OUTPUT = ROOT / "data/07_model_output"

PROMPTS, POLICIES = 5, {"original": "before", "mpo": "after MPO"}
CLIP, GAP, LEFT, TOP = 96, 12, 84, 34
"""Pixels of a clip's side, between clips, and around them."""
BARS, SCALE = 176, 62
"""Pixels of the column of gains, and of one unit of reward in it."""
INK, PALE, GROUND, COLOURS = "#1c2430", "#4d5866", "#ffffff", {"mpo": "#00796b", "dpo": "#c2571a"}


def text(draw: ImageDraw.ImageDraw, place: tuple[float, float], words: str, size: int, colour: str = INK) -> None:
    """Write centred words."""
    draw.multiline_text(
        place, words, fill=colour, font=ImageFont.load_default(size), anchor="mm", align="center", spacing=2
    )


def ground(
    width: int, height: int, names: list[str], metrics: dict[str, dict[str, dict[str, dict[str, float]]]]
) -> Image.Image:
    """Draw what does not move: names and gains."""
    image = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(image)
    for row, title in enumerate(POLICIES.values()):
        text(draw, (LEFT / 2, TOP + row * (CLIP + GAP) + CLIP / 2), title.replace(" ", "\n"), 15)
    for column, name in enumerate(names):
        words = name.split(" ")
        half = (len(words) + 1) // 2
        place = (LEFT + column * (CLIP + GAP) + CLIP / 2, TOP / 2)
        text(draw, place, " ".join(words[:half]) + "\n" + " ".join(words[half:]), 11, PALE)
    left = LEFT + len(names) * (CLIP + GAP) + 20
    zero = TOP + 2 * CLIP + GAP - 34
    text(draw, (left + BARS / 2 - 10, TOP / 2), "gain of reward over the\noriginal, held-out prompts", 11, PALE)
    draw.line((left, zero, left + BARS - 20, zero), fill=PALE)
    for place, (policy, judge) in enumerate((p, j) for j in ("judge", "oracle") for p in ("mpo", "dpo")):
        found = metrics["gain"][policy][judge]
        middle = left + 22 + place * 34 + (14 if judge == "oracle" else 0)
        draw.rectangle((middle - 10, zero - SCALE * found["mean"], middle + 10, zero), fill=COLOURS[policy])
        low, high = (zero - SCALE * found[end] for end in ("ci_low", "ci_high"))
        draw.line((middle, low, middle, high), fill=INK, width=2)
        text(draw, (middle, high - 9), f"+{found['mean']:.2f}", 11)
        text(draw, (middle, zero + 9), policy.upper(), 11, COLOURS[policy])
    for judge, middle in (("judge", left + 39), ("oracle", left + 121)):
        text(draw, (middle, zero + 25), judge, 12)
    return image


def main() -> None:
    """Read the demo's results and write the picture."""
    metrics = json.loads((ROOT / "data/08_reporting/evaluation_metrics.json").read_text(encoding="utf-8"))
    index = pd.read_parquet(OUTPUT / "evaluation_video_index.parquet")
    index = index[(index["status"] == "ok") & (index["sample_index"] == index["sample_index"].min())]
    prompts = sorted(index["prompt_id"].unique(), key=lambda name: content_hash("shown prompt", str(name)))[:PROMPTS]
    names = [str(index.loc[index["prompt_id"] == prompt, "prompt"].iloc[0]) for prompt in prompts]
    still = ground(LEFT + PROMPTS * (CLIP + GAP) + BARS + 20, TOP + 2 * CLIP + GAP + 10, names, metrics)
    clips = {
        (row, column): read_frames(
            OUTPUT
            / "evaluation_videos"
            / index[(index["policy"] == policy) & (index["prompt_id"] == prompt)]["path"].iloc[0]
        )
        for row, policy in enumerate(POLICIES)
        for column, prompt in enumerate(prompts)
    }
    pictures = []
    for step in range(min(len(frames) for frames in clips.values())):
        picture = still.copy()
        for (row, column), frames in clips.items():
            frame = Image.fromarray(np.asarray(frames[step])).resize((CLIP, CLIP), Image.Resampling.NEAREST)
            picture.paste(frame, (LEFT + column * (CLIP + GAP), TOP + row * (CLIP + GAP)))
        pictures.append(picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    pictures[0].save(TARGET, save_all=True, append_images=pictures[1:], duration=160, loop=0, optimize=True)


if __name__ == "__main__":
    main()
