"""Questions on one shared prefix against one forward pass a question, on a random Qwen2-VL of real shape.

    python benchmarks/checklist.py                      # a mid-size model on the CPU, float32
    python benchmarks/checklist.py --device cuda        # Qwen2-VL-2B and then 7B sizes, bfloat16, on a GPU
    python benchmarks/checklist.py --device cuda --size 7b --clips 4    # four clips at a time

The alternative encodes the video and reads the prefix again for every question, as the public VisionReward script
does (which also generates text; only one forward is counted here, in its favour). It is timed on a few questions and
scaled to all. The floor is the time of the vision tower plus one plain causal pass over as many tokens.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

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
        shared_seconds = seconds(shared, device, arguments.repeats)
        peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_memory() / 2**20
        sampled = [int(at) for at in np.linspace(0, len(questions) - 1, arguments.sampled).round()]
        plain(questions[0])
        per_question, difference = [], 0.0
        for at in sampled:
            value: list[float] = []
            ask = partial(plain, questions[at])
            per_question.append(seconds(lambda ask=ask, kept=value: kept.append(float(ask())), device, 1))  # type: ignore[misc]
            difference = max(difference, abs(value[0] - float(answers[0][0][at])))
        plain_seconds = statistics.median(per_question) * len(questions) * len(clips)
        floor_seconds = seconds(floor, device, arguments.repeats)
        preparing_seconds = seconds(lambda: [judge.prepare(clip) for clip in clips], device, arguments.repeats)
        vision_seconds = seconds(lambda: family.vision_features(prepared), device, arguments.repeats)
        prefix_seconds = seconds(lambda: CachedPrefix(family, prepared), device, arguments.repeats)

    prefill_seconds = max(prefix_seconds - vision_seconds, 0.0)
    question_seconds = max(shared_seconds - prefix_seconds - preparing_seconds, 0.0)
    for name, figure in (
        ("shared prefix", shared_seconds),
        ("  resizing and patches", preparing_seconds),
        ("  vision tower", vision_seconds),
        ("  prefill", prefill_seconds),
        ("  questions", question_seconds),
        ("token floor", floor_seconds),
        (f"one forward a question ({arguments.sampled} timed, scaled to all)", plain_seconds),
    ):
        print(f"{name:<58} {figure:9.3f} s")
    print(f"largest difference of an answer: {difference:.1e}")
    return {
        "ratio": round(plain_seconds / shared_seconds, 2),
        "ratio_to_floor": round(shared_seconds / floor_seconds, 2),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=SIZES, help="one size only; else 'cpu', or 2b and 7b on a GPU")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--clips", type=int, default=1, help="clips read at a time")
    parser.add_argument("--sampled", type=int, default=3, help="questions on which the alternative is timed")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device.")
    sizes = [arguments.size] if arguments.size else ["cpu"] if arguments.device == "cpu" else ["2b", "7b"]
    figures = {}
    for size in sizes:
        figures[size] = measure(size, arguments.device, arguments)
        if arguments.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
    first = figures[sizes[0]]
    print(json.dumps(first if len(sizes) == 1 else first | {"sizes": figures}))


if __name__ == "__main__":
    main()
