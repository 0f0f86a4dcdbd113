"""Questions on one shared prefix against one forward pass a question, on a random Qwen2-VL of real shape.

    python benchmarks/checklist.py                      # a mid-size model on the CPU, float32
    python benchmarks/checklist.py --device cuda        # Qwen2-VL-2B and then 7B sizes, bfloat16, on a GPU
    python benchmarks/checklist.py --device cuda --size 7b --clips 4    # four clips at a time
    python benchmarks/checklist.py --additions 0        # without the comparisons with and without each addition

The alternative encodes the video and reads the prefix again for every question, as the public VisionReward script
does (which also generates text; only one forward is counted here, in its favour). It is timed on a few questions and
scaled to all. The floor is the time of the vision tower plus one plain causal pass over as many tokens.

Then each of three additions is switched off, on the same clips in the same process, in turns: a prompt before the clip
that is read once for all clips of the prompt (off: once per clip), batches of clips of one length (off: batches in the
order of the clips, padded to the longest), and decoding of the next group of clips while the model reads one (off: in
turn). The first two save computation, so processor time on the CPU; the third saves time by the clock only, and needs a
core that is free. Answers must agree within the tolerance of rounding.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.rewards.checklist.model import ChecklistReward, Loaded
from vr_pipeline.work import run_in_process

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        "kv": 2,
        "vision": {"depth": 1, "embed_dim": 64, "num_heads": 2},
        "mrope": [2, 3, 3],
        "frames": 4,
        "pixels": (56, 84),
        "dtype": "bfloat16",
    },
    "cpu": {
        "text": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
        "kv": 4,
        "vision": {"depth": 6, "embed_dim": 320, "num_heads": 5},
        "mrope": [8, 12, 12],
        "frames": 16,
        "pixels": (224, 336),
        "dtype": "float32",
    },
    "2b": {
        "text": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
        "kv": 2,
        "vision": {"depth": 32, "embed_dim": 1280, "num_heads": 16},
        "mrope": [16, 24, 24],
        "frames": 24,
        "pixels": (448, 672),
        "dtype": "bfloat16",
    },
    "7b": {
        "text": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
        "kv": 4,
        "vision": {"depth": 32, "embed_dim": 1280, "num_heads": 16},
        "mrope": [16, 24, 24],
        "frames": 24,
        "pixels": (448, 672),
        "dtype": "bfloat16",
    },
}


PROMPT_WORDS = 200
"""Words of the prompt before the clip: the length of one that was expanded for a generator."""

CLIPS_OF_A_PROMPT = 4
GROUPS, CLIPS_OF_A_GROUP = 3, 2
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest difference of an answer that rounding explains, by the model's precision."""


def make_judge(size: str, device: str, questions: list[str], clips: int) -> Any:
    """A judge over a random model of the given size, with a word-level tokenizer that knows the questions."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from vr_pipeline.judges.training.tiny import CLIP, CLIP_END, FRAME, IMAGE, word_tokenizer, words_of
    from vr_pipeline.judges.vlm import VisionLanguageJudge
    from vr_pipeline.vlm.config import JudgeParameters
    from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL

    shape = SIZES[size]
    tokenizer = word_tokenizer(words_of(questions))
    image, video, start, end = tokenizer.convert_tokens_to_ids([IMAGE, FRAME, CLIP, CLIP_END])
    vocabulary = len(tokenizer) if size in ("cpu", "tiny") else 152064
    config = Qwen2VLConfig(
        text_config=shape["text"]
        | {"num_key_value_heads": shape["kv"], "vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None}
        | {"rope_parameters": {"rope_type": "default", "mrope_section": shape["mrope"]}},
        vision_config=shape["vision"]
        | {"hidden_size": shape["text"]["hidden_size"], "patch_size": 14, "temporal_patch_size": 2}
        | {"spatial_merge_size": 2, "mlp_ratio": 4},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, shape["dtype"]))
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration(config).eval()
    torch.set_default_dtype(before)
    height, width = shape["pixels"]
    settings = Qwen2VL.default_settings.model_copy(
        update={"before_clip": CLIP, "after_clip": CLIP_END, "after_question": "<answer>"}
        | {"height": height, "width": width, "num_frames": shape["frames"]}
    )
    parameters = JudgeParameters(
        family="qwen2_vl", path="./random", prefix="cached", question_chunk_size=64, clip_batch=clips
    )
    return VisionLanguageJudge(Qwen2VL(model, tokenizer, settings), parameters, "benchmark")


def seconds(run: Callable[[], Any], device: str, repeats: int) -> float:
    """Median wall time of a call."""
    import torch

    times = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def used(run: Callable[[], Any], device: str) -> tuple[float, float, Any]:
    """Wall and processor seconds of a call, and what it returns."""
    import torch

    start, processor = time.perf_counter(), time.process_time()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - processor, result


def make_questions(count: int) -> list[str]:
    """Questions of the length of a checklist's."""
    subjects = ["light", "picture", "movement", "subject", "background", "colour", "camera", "shape"]
    qualities = ["very beautiful", "free of plain errors", "steady from first to last", "sharp", "rich", "natural"]
    return [
        f"is the {subjects[number % 8]} of the video {qualities[number % 6]} and {qualities[(number // 8) % 6]} ?"
        for number in range(count)
    ]


def measure(size: str, device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times of one model; everything that depends on a clip, its resizing included, is done anew in each call."""
    import torch

    from vr_pipeline.runtime.memory import peak_memory
    from vr_pipeline.vlm.prefix import CachedPrefix

    questions = make_questions(arguments.questions)
    judge = make_judge(size, device, questions, arguments.clips)
    shape = SIZES[size]
    random = np.random.default_rng(0)
    clips = [
        random.integers(0, 256, (shape["frames"], *shape["pixels"], 3), dtype=np.uint8) for _ in range(arguments.clips)
    ]
    family = judge.family
    prepared = [judge.prepare(clip) for clip in clips]
    segments = [judge.question_segment(question) for question in questions]
    visual = int(np.isin(prepared[0].token_ids, family.placeholder_ids).sum())
    asked = sum(len(segment.token_ids) for segment in segments)
    parameters = sum(weight.numel() for weight in family.model.parameters())
    print(
        f"model: {size}, {parameters / 1e6:.0f} M parameters on {device}, {shape['dtype']}, "
        f"threads {torch.get_num_threads()}"
    )
    print(f"{len(clips)} clips of {shape['frames']} frames, {visual} visual tokens each; ", end="")
    print(f"{len(questions)} questions, {asked} tokens")

    with torch.inference_mode():
        answers: list[Any] = []

        def shared() -> None:
            answers[:] = [judge.answer(clips, questions)[0]]

        def plain(question: str) -> Any:
            again = judge.prepare(clips[0])
            ids = np.append(again.token_ids, judge.question_segment(question).token_ids)[None]
            tensor = torch.from_numpy(ids).to(device)
            output = family.model(
                input_ids=tensor,
                pixel_values_videos=torch.from_numpy(again.vision["patches"]).to(device, family.model.dtype),
                video_grid_thw=torch.from_numpy(again.vision["grid"]).to(device),
                mm_token_type_ids=2 * (tensor == family.model.config.video_token_id).int(),
                logits_to_keep=1,
            )
            return judge._probabilities(output.logits[0, -1].float())[0]

        def floor() -> None:
            family.embed_prefixes([judge.prepare(clip) for clip in clips])
            length = len(prepared[0].token_ids) + asked
            embeddings = family.embed_tokens(np.zeros((len(clips), length), np.int64))
            family.language_model(inputs_embeds=embeddings, use_cache=False)

        shared()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        sampled = [int(at) for at in np.linspace(0, len(questions) - 1, arguments.sampled).round()]
        plain(questions[0])
        floor()
        # In turns, so that all three meet the same load of the machine.
        shared_times, floor_times, plain_times = [], [], []
        for number in range(arguments.repeats):
            shared_times.append(used(shared, device)[:2])
            floor_times.append(used(floor, device)[:2])
            plain_times.append(used(partial(plain, questions[sampled[number % len(sampled)]]), device)[:2])
        peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_memory() / 2**20
        shared_seconds, shared_processor = np.median(shared_times, axis=0)
        floor_seconds, floor_processor = np.median(floor_times, axis=0)
        plain_seconds, plain_processor = np.median(plain_times, axis=0) * len(questions) * len(clips)
        difference = max(abs(float(plain(questions[at])) - float(answers[0][0][at])) for at in sampled)
        preparing_seconds = seconds(lambda: [judge.prepare(clip) for clip in clips], device, arguments.repeats)
        vision_seconds = seconds(lambda: family.vision_features(prepared), device, arguments.repeats)
        prefix_seconds = seconds(lambda: CachedPrefix(family, prepared), device, arguments.repeats)

    prefill_seconds = max(prefix_seconds - vision_seconds, 0.0)
    question_seconds = max(shared_seconds - prefix_seconds - preparing_seconds, 0.0)
    for name, figure in (
        ("shared prefix", shared_seconds),
        ("  processor time", shared_processor),
        ("  resizing and patches", preparing_seconds),
        ("  vision tower", vision_seconds),
        ("  prefill", prefill_seconds),
        ("  questions", question_seconds),
        ("token floor", floor_seconds),
        ("  processor time", floor_processor),
        (f"one forward a question ({arguments.repeats} timed, scaled to all)", plain_seconds),
        ("  processor time", plain_processor),
    ):
        print(f"{name:<58} {figure:9.3f} s")
    print(
        f"{plain_seconds / shared_seconds:.1f} times faster than one forward a question "
        f"({plain_processor / shared_processor:.1f} in processor time); {shared_seconds / floor_seconds:.2f} times the "
        f"token floor ({shared_processor / floor_processor:.2f}); largest difference of an answer {difference:.1e}",
        flush=True,
    )
    return {
        "ratio": round(plain_seconds / shared_seconds, 2),
        "ratio_to_floor": round(shared_seconds / floor_seconds, 2),
        "processor_ratio": round(plain_processor / shared_processor, 2),
        "processor_ratio_to_floor": round(shared_processor / floor_processor, 2),
        "seconds": round(shared_seconds, 4),
        "clips_per_second": round(len(clips) / shared_seconds, 4),
        "peak_mb": round(peak),
        "share_preparing": round(preparing_seconds / shared_seconds, 3),
        "share_vision": round(vision_seconds / shared_seconds, 3),
        "share_prefill": round(prefill_seconds / shared_seconds, 3),
        "share_questions": round(question_seconds / shared_seconds, 3),
        "visual_tokens": visual,
        "questions": len(questions),
        "clips": len(clips),
        "size": size,
        "dtype": shape["dtype"],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "max_difference": difference,
    }


class Asked(ChecklistReward):
    """The checklist's reward with a judge that is loaded already."""

    measured_by = ("benchmark",)  # type: ignore[assignment]
    recorded = {}  # type: ignore[assignment] # noqa: RUF012
    answered_by: Any = None

    def load(self) -> Loaded:
        """Return the judge."""
        return self.answered_by, None


def with_and_without(with_it: Callable[[], Any], without: Callable[[], Any], device: str, repeats: int) -> Any:
    """Time two ways that take turns, in both orders.

    Returns:
        median seconds and processor seconds of both ways, the median of the rounds' ratios (without to with), and the
        largest difference of an answer.
    """
    ways, found = (with_it, without), ([], [])  # type: ignore[var-annotated]
    for number in range(repeats):
        for at in (0, 1) if number % 2 else (1, 0):
            found[at].append(used(ways[at], device))
    (seconds_with, processor_with, answers), (seconds_without, processor_without, others) = (
        zip(*one, strict=True) for one in found
    )

    def ratio(with_one: Sequence[float], without_one: Sequence[float]) -> float:
        return round(statistics.median(b / a for a, b in zip(with_one, without_one, strict=True)), 3)

    return {
        "seconds": round(statistics.median(seconds_with), 3),
        "seconds_without": round(statistics.median(seconds_without), 3),
        "ratio": ratio(seconds_with, seconds_without),
        "processor": round(statistics.median(processor_with), 3),
        "processor_without": round(statistics.median(processor_without), 3),
        "processor_ratio": ratio(processor_with, processor_without),
        "max_difference": float(np.abs(np.asarray(answers[0]) - np.asarray(others[0])).max()),
    }


def additions(size: str, device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures with and without each addition: shared beginning, batches of one length, reading ahead."""
    from vr_pipeline.judges.training.tiny import CLIP
    from vr_pipeline.judges.vlm import VisionLanguageJudge
    from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL

    questions = make_questions(arguments.questions)
    words = [word for question in make_questions(8) for word in question.split()]
    prompt = " ".join(words[at % len(words)] for at in range(PROMPT_WORDS))
    base, shape = make_judge(size, device, questions, 1), SIZES[size]

    def judge_with(clip_batch: int, **settings: Any) -> Any:
        family = base.family
        family = Qwen2VL(family.model, family.tokenizer, family.settings.model_copy(update=settings))
        parameters = base.parameters.model_copy(update={"clip_batch": clip_batch})
        return VisionLanguageJudge(family, parameters, "benchmark")

    random = np.random.default_rng(0)

    def clip_of(frames: int) -> np.ndarray:
        return random.integers(0, 256, (frames, *shape["pixels"], 3), dtype=np.uint8)

    def compare(name: str, with_it: Callable[[], Any], without: Callable[[], Any]) -> dict[str, Any]:
        figures = with_and_without(with_it, without, device, arguments.additions)
        print(
            f"{name:<18} with {figures['seconds']:8.3f} s ({figures['processor']:.3f} s processor), "
            f"without {figures['seconds_without']:8.3f} s ({figures['processor_without']:.3f} s): "
            f"{figures['ratio']:.3f} times by the clock, {figures['processor_ratio']:.3f} in processor time; "
            f"largest difference {figures['max_difference']:.1e}",
            flush=True,
        )
        if not figures["max_difference"] <= TOLERANCE[shape["dtype"]]:
            sys.exit(f"With {name} the answers differ by {figures['max_difference']}.")
        return figures

    found = {}

    behind_prompt = judge_with(1, before_clip=f"[[prompt]] {CLIP}")
    clips = [clip_of(shape["frames"]) for _ in range(CLIPS_OF_A_PROMPT)]
    found["shared_beginning"] = compare(
        "shared beginning",
        lambda: behind_prompt.answer(clips, questions, [prompt] * len(clips))[0],
        lambda: np.concatenate([behind_prompt.answer([clip], questions, [prompt])[0] for clip in clips]),
    )

    in_batches = judge_with(CLIPS_OF_A_PROMPT)
    mixed = [clip_of(frames) for frames in (max(2, shape["frames"] // 4), shape["frames"]) * CLIPS_OF_A_PROMPT]
    in_order = [mixed[at : at + CLIPS_OF_A_PROMPT] for at in range(0, len(mixed), CLIPS_OF_A_PROMPT)]
    found["one_length"] = compare(
        "one length",
        lambda: in_batches.answer(mixed, questions)[0],
        lambda: np.concatenate([in_batches.answer(some, questions)[0] for some in in_order]),
    )

    with tempfile.TemporaryDirectory() as folder:
        found["reading_ahead"] = reading_ahead(judge_with(CLIPS_OF_A_GROUP), questions, Path(folder), compare)
    return found


def reading_ahead(judge: Any, questions: Sequence[str], folder: Path, compare: Callable[..., Any]) -> Any:
    """Compare judging of files, group by group, with and without decoding the next group meanwhile."""
    from vr_pipeline.video.write import write_video

    asked = [{"id": f"q{at}", "text": text} for at, text in enumerate(questions)]
    dimensions = [{"name": "all", "sub_dimensions": [{"name": "all", "questions": asked}]}]
    reward = Asked(checklist_from_mapping({"name": "benchmark", "modality": "video", "dimensions": dimensions}))
    reward.answered_by, reward.clips_per_item, reward.reader_threads = judge, CLIPS_OF_A_GROUP, 1
    generator, rows = np.random.default_rng(0), []
    for number in range(GROUPS * CLIPS_OF_A_GROUP):
        # Smooth pictures that move, which a codec does not see as noise.
        picture = generator.integers(0, 256, (6, 9, 3), dtype=np.uint8).repeat(80, 0).repeat(80, 1)
        frames = np.stack([np.roll(picture, 5 * at, axis=1) for at in range(49)])
        write_video(folder / f"{number}.mp4", frames, fps=8, codec="libx264")
        group, sample = divmod(number, CLIPS_OF_A_GROUP)
        rows.append((f"p{group}", sample, f"v{number:02}", f"prompt {group}", f"{number}.mp4"))
    index = pd.DataFrame(rows, columns=["prompt_id", "sample_index", "video_id", "prompt", "path"])
    index, files = index.assign(sha256="0" * 64, status="ok"), {name: folder / name for name in index["path"]}

    def answers(*, ahead: bool) -> np.ndarray:
        plan = reward.measure(files, index)
        plan = plan if ahead else replace(plan, ahead=None)
        tables = pd.concat([table for _, made in run_in_process(plan, plan.batches()) for table in made])
        return tables["p_yes"].to_numpy()

    reading = statistics.median(
        used(lambda: [reward.read_group(reward.loaded(), files, group) for group in by_group(index)], "cpu")[0]
        for _ in range(3)
    )
    figures = compare("reading ahead", lambda: answers(ahead=True), lambda: answers(ahead=False))
    print(f"{GROUPS} groups of {CLIPS_OF_A_GROUP} clips; decoding alone takes {reading:.3f} s")
    return figures | {"seconds_of_decoding": round(reading, 3)}


def by_group(index: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """Return the clips of each prompt."""
    return [
        [{str(name): value for name, value in row.items()} for row in group.to_dict("records")]
        for _, group in index.groupby("prompt_id")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=SIZES, help="one size only; else 'cpu', or 2b and 7b on a GPU")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--clips", type=int, default=1, help="clips read at a time")
    parser.add_argument("--sampled", type=int, default=3, help="questions of which answers are compared")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of shared prefix, floor and alternative")
    parser.add_argument("--additions", type=int, default=3, help="rounds with and without each addition; 0 for none")
    arguments = parser.parse_args()

    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device.")
    sizes = [arguments.size] if arguments.size else ["cpu"] if arguments.device == "cpu" else ["2b", "7b"]
    figures = {}
    for size in sizes:
        figures[size] = measure(size, arguments.device, arguments)
        if arguments.additions:
            figures[size]["additions"] = additions(size, arguments.device, arguments)
        if arguments.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
    first = figures[sizes[0]]
    print(json.dumps(first if len(sizes) == 1 else first | {"sizes": figures}))


if __name__ == "__main__":
    main()
