"""All dimensions of a clip in one pass against one pass a dimension, on a random Qwen2-VL of real shape.

    python benchmarks/videoreward.py                    # a mid-size model on the CPU, float32, five dimensions
    python benchmarks/videoreward.py --dimensions 3     # as many as in the paper
    python benchmarks/videoreward.py --device cuda      # Qwen2-VL-2B's size, bfloat16, on a GPU

The public way calls the model of transformers for each clip and dimension: the frames are encoded and the whole text is
read again, one clip a call. It is timed on the same clips, texts and weights, in turns with ours; both give the same
scores. The same is done for several prompts of a clip (all dimensions in a pass, the clip read again for each prompt).
The floor is the time of the vision tower plus one plain causal pass over as many tokens.

CPU seconds of the process are compared on a CPU, so that what else the machine does matters less.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from checklist import SIZES, make_judge
from on_device import parsed, parser_of

RUBRIC = (
    " {name} : rate the {name} of the video from zero to ten . look at every frame from first to last and at the whole"
    " clip : is it natural , steady , sharp and free of errors , and would a person who watches it for the first time"
    " be pleased with it ? small faults count less than large ones , and what is missing counts as a fault too ."
)
PROMPTS = [
    "a red fox runs through deep snow while the camera follows it from the side at dawn",
    "an old man plays the violin in a small room with one window and a green chair",
    "a paper boat floats down a narrow street after the rain and turns at the corner",
]
NAMES = ["visual", "motion", "text", "colour", "light", "camera", "detail", "shape"]


def make_network(size: str, device: str, count: int) -> Any:
    """A VideoReward over a random model, whose last dimension sees the prompt."""
    from vr_pipeline.rewards.videoreward.network import new_network
    from vr_pipeline.rewards.videoreward.settings import NetworkSettings

    names = [*[name for name in NAMES if name != "text"][: count - 1], "text"]
    dimensions = [{"name": name, "rubric": RUBRIC.format(name=name), "sees_prompt": name == "text"} for name in names]
    settings = NetworkSettings.model_validate(
        {
            "dimensions": dimensions,
            "introduction": "you are to evaluate a generated video in several dimensions .",
            "prompt_text": " the prompt : [[prompt]]",
        }
    )
    texts = [settings.introduction, settings.prompt_text, *PROMPTS, *(one.rubric for one in settings.dimensions)]
    return new_network(make_judge(size, device, texts, 1).family, settings, seed=0)


class PublicWay:
    """The plain class of transformers with the special tokens in its vocabulary."""

    def __init__(self, network: Any) -> None:
        import torch

        self.network, self.family = network, copy.copy(network.family)
        self.model = self.family.model = copy.deepcopy(network.family.model)
        self.first = self.model.get_input_embeddings().weight.shape[0]
        self.model.resize_token_embeddings(self.first + len(network.token_rows), mean_resizing=False)
        with torch.no_grad():
            self.model.get_input_embeddings().weight[self.first :] = network.token_rows

    def states(self, frames: np.ndarray, prompt: str) -> tuple[list[int], Any]:
        """Read clip and text; return the tokens and their last hidden states."""
        import torch

        clip = self.family.prepare(frames, 2.0)
        part = self.network.layout.early + self.network.layout.late(prompt)
        text = np.array(part.token_ids)
        text[list(part.places)] = self.first + np.array(part.dimensions)
        ids = torch.from_numpy(np.append(clip.token_ids, text))[None].to(self.model.device)
        output = self.model.model(
            input_ids=ids,
            pixel_values_videos=torch.from_numpy(clip.vision["patches"]).to(self.model.device, self.model.dtype),
            video_grid_thw=torch.from_numpy(clip.vision["grid"]).to(self.model.device),
            mm_token_type_ids=2 * (ids == self.model.config.video_token_id).int(),
            use_cache=False,
        )
        return ids[0].tolist(), output.last_hidden_state[0]

    def a_pass_a_dimension(self, clips: Sequence[np.ndarray], prompt: str) -> np.ndarray:
        """Scores [clips, dimensions]."""
        rows = []
        for frames in clips:
            row = []
            for dimension in range(len(self.network.token_rows)):
                ids, hidden = self.states(frames, prompt)
                row.append(float(self.network.head(hidden[ids.index(self.first + dimension)].float())[0]))
            rows.append(row)
        return np.array(rows)

    def a_pass_a_prompt(self, clips: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        """Scores [clips and their prompts, dimensions]."""
        count = len(self.network.token_rows)
        rows = []
        for frames in clips:
            for prompt in prompts:
                ids, hidden = self.states(frames, prompt)
                places = [ids.index(self.first + dimension) for dimension in range(count)]
                rows.append(self.network.head(hidden[places].float())[:, 0].cpu().numpy())
        return np.stack(rows)


def in_turns(runs: dict[str, Callable[[], Any]], device: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of every call, one after the other in each repeat: CPU seconds on a CPU."""
    import torch

    clock = time.perf_counter if device == "cuda" else time.process_time
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:  # The first warms up.
                times[name].append(clock() - start)
    return times


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one model; everything that depends on a clip, its resizing included, is done anew in each call."""
    import torch

    device, size = arguments.device, arguments.size
    network = make_network(size, device, arguments.dimensions)
    public = PublicWay(network)
    family, shape = network.family, SIZES[size]
    random = np.random.default_rng(0)
    clips = [
        random.integers(0, 256, (shape["frames"], *shape["pixels"], 3), dtype=np.uint8) for _ in range(arguments.clips)
    ]
    prompts = PROMPTS[: arguments.prompts]

    def prepared() -> list[Any]:
        return [family.prepare(clip, 2.0) for clip in clips]

    def ours() -> np.ndarray:
        found = [network.scores([clip], [prompts[0]]) for clip in prepared()]
        return torch.cat(found).cpu().numpy()

    def ours_of_prompts() -> np.ndarray:
        found = [network.scores_of_prompts([clip], [prompts]) for clip in prepared()]
        return torch.cat(found).cpu().numpy()

    part = network.layout.early + network.layout.late(prompts[0])

    def floor() -> None:
        for clip in prepared():
            family.embed_prefixes([clip])
            length = len(clip.token_ids) + len(part.token_ids)
            embeddings = family.embed_tokens(np.zeros((1, length), np.int64))
            family.language_model(inputs_embeds=embeddings, use_cache=False)

    runs: dict[str, Callable[[], Any]] = {
        "all dimensions at once": ours,
        "a pass a dimension": lambda: public.a_pass_a_dimension(clips, prompts[0]),
        f"{len(prompts)} prompts at once": ours_of_prompts,
        "a pass a prompt": lambda: public.a_pass_a_prompt(clips, prompts),
        "token floor": floor,
        "resizing and patches": prepared,
        "vision tower": lambda: [family.vision_features([clip]) for clip in prepared()],
    }
    with torch.inference_mode():
        differences = [
            float(np.abs(first - second).max())
            for first, second in (
                (ours(), public.a_pass_a_dimension(clips, prompts[0])),
                (ours_of_prompts(), public.a_pass_a_prompt(clips, prompts)),
            )
        ]
        times = in_turns(runs, device, arguments.repeats)
    weights = sum(weight.numel() for weight in family.model.parameters())
    visual = int(np.isin(prepared()[0].token_ids, family.placeholder_ids).sum())
    print(f"model: {size}, {weights / 1e6:.0f} M parameters on {device}, {shape['dtype']}", end="")
    print(f", threads {torch.get_num_threads()}")
    print(f"{len(clips)} clips, {visual} visual tokens each; {arguments.dimensions} dimensions, ", end="")
    print(f"{len(part.token_ids)} tokens of text")
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:<28} {middle[name]:9.3f} s   ({min(values):.3f} to {max(values):.3f})")
    print(f"largest difference of a score: {max(differences):.1e}")
    ours_s, theirs_s, one_by_one, floor_s = (
        middle[name] for name in [*list(runs)[:2], "a pass a prompt", "token floor"]
    )
    return {
        "ratio": round(theirs_s / ours_s, 2),
        "ratio_of_prompts": round(one_by_one / middle[f"{len(prompts)} prompts at once"], 2),
        "ratio_to_floor": round(ours_s / floor_s, 2),
        "seconds": round(ours_s, 4),
        "clips_per_second": round(len(clips) / ours_s, 4),
        "tokens_per_second": round(len(clips) * (visual + len(part.token_ids)) / ours_s),
        "visual_tokens": visual,
        "text_tokens": len(part.token_ids),
        "dimensions": arguments.dimensions,
        "prompts": len(prompts),
        "clips": len(clips),
        "repeats": arguments.repeats,
        "size": size,
        "dtype": shape["dtype"],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "max_difference": max(differences),
    }


def main() -> None:
    parser = parser_of(__doc__, SIZES)
    parser.add_argument("--dimensions", type=int, default=5, choices=range(2, len(NAMES) + 1))
    parser.add_argument("--prompts", type=int, default=2, choices=range(1, len(PROMPTS) + 1))
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    print(json.dumps(measure(parsed(parser))))


if __name__ == "__main__":
    main()
