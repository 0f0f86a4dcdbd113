"""Judges and training put every tensor on the device of the model: seen on a device that rejects all others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

JUDGES = """
import numpy as np
import tiny_judges
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.judges.vlm import VisionLanguageJudge

random = np.random.default_rng(0)
clips = [random.integers(0, 255, (frames, 56, 84, 3), dtype=np.uint8) for frames in (4, 2, 1)]
tokenizer = tiny_judges.build_tokenizer()
for name, build in tiny_judges.FAMILY_BUILDERS.items():
    for prefix in ("packed", "cached"):
        parameters = JudgeParameters(family=name, path="none", prefix=prefix, num_frames=4, clip_batch=3)
        answers = []
        for device in ("cpu", pretend_device.NAME):
            family = build(tokenizer)
            family.model = family.model.to(device)
            assert family.device.type == device
            judge = VisionLanguageJudge(family, parameters, "test")
            answers.append(judge.answer(clips, ["is it good ?", "is it clear ? yes"], ["a", "b", "c"])[0])
        found[f"{name}, {prefix}"] = float(np.abs(answers[0] - answers[1]).max())
"""

UNIFIED_REWARD = """
import tiny_judges
import tiny_unifiedreward as tiny
from vr_pipeline.rewards.unifiedreward.reading import ClipReader, Pair, Point

task, clips, points, pairs = "video_generation", tiny.toy_clips(), [Point("a", "ball")], [Pair("a", "b", "ball")]
writing = tiny.toy_template(video_generation__point__reasons={"until": "never said", "max_tokens": 4})
for name in tiny_judges.FAMILY_BUILDERS:
    scores, reasons = [], []
    for device in ("cpu", pretend_device.NAME):
        family = tiny.toy_family(name)
        family.model = family.model.to(device)
        reader = ClipReader(family, tiny.toy_template(), clips)
        (point,), (pair,) = reader.points(task, points), reader.pairs(task, pairs)
        scores.append([point.total, pair.first, pair.outside])
        # It writes the same words, and comes to no answer.
        reasons.append(str(ClipReader(family, writing, clips).points(task, points)))
    assert reasons[0] == reasons[1] and "NoAnswerError" in reasons[0]
    found[name] = max(abs(one - other) for one, other in zip(*scores))
"""

TRAINING = """
from pathlib import Path
import torch
import tiny_models
from vr_pipeline.generators import load_generator
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs

class Stop(Exception):
    pass

def train(parameters, device, stop_at=None):
    generator = load_generator(parameters.model_copy(update={"device": device}), ("denoiser",))
    def observe(row):
        if row["step"] == stop_at:
            raise Stop
    log = train_on_pairs(
        generator, PairData(pairs, latents, conditions), settings, checkpoint=Path(folder, "state"), observe=observe
    )
    return generator, log

settings = PreferenceTrainingParameters(
    beta=1000.0, steps=4, batch_size=1, learning_rate=1e-3, warmup_steps=1, threads=1, checkpoint_every=2,
    gradient_checkpointing=True, ema_decay=0.5, lora=LoRAParameters(rank=2, alpha=4.0),
)
save = {"cogvideox": lambda at: tiny_models.save_cogvideox(at, rotary=True), "wan": tiny_models.save_wan}
for name, values in {"cogvideox": tiny_models.cogvideox_parameters, "wan": tiny_models.wan_parameters}.items():
    parameters = values(save[name](Path(folder, name)))
    whole = load_generator(parameters)
    clips = whole.sample(["one", "two"], [1, 2])
    encoded, conditions = whole.encode_frames(clips), {"prompt": whole.encode_prompts(["one"])}
    latents = {"winner": encoded[0], "loser": encoded[1]}
    pairs = [TrainingPair("pair", "prompt", "winner", "loser")]

    elsewhere = load_generator(parameters.model_copy(update={"device": pretend_device.NAME}))
    assert next(elsewhere.denoiser.parameters()).device.type == pretend_device.NAME
    found[f"{name}, clips"] = float(abs(elsewhere.sample(["one", "two"], [1, 2]).astype(float) - clips).max()) / 255
    found[f"{name}, latents"] = float((elsewhere.encode_frames(clips) - encoded).abs().max())

    _, expected = train(parameters, "cpu")
    try:
        train(parameters, pretend_device.NAME, stop_at=3)
        raise AssertionError("the training was not stopped")
    except Stop:
        pass
    trained, log = train(parameters, pretend_device.NAME)
    assert all(value.device.type == "cpu" for value in trained.policy().tensors.values())
    # Steps follow the signs of gradients, some of which are almost 0: the policies themselves differ in places.
    found[f"{name}, errors"] = float((log["winner_error"] - expected["winner_error"]).abs().max())
    found[f"{name}, gradient"] = float((log["gradient_norm"] / expected["gradient_norm"] - 1).abs()[0])
    with trained.encoders():
        assert trained.sample(["one"], [1]).shape == clips[:1].shape
"""


def differences(code: str, folder: Path) -> dict[str, float]:
    """What a script found, run where the device is known."""
    script = "\n".join(
        [
            "import json, sys",
            f"sys.path[:0] = [{str(HERE / 'support')!r}]",
            "import pretend_device",
            "pretend_device.install()",
            f"folder, found = {str(folder)!r}, {{}}",
            code,
            "print(json.dumps(found))",
        ]
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_mixing_devices_is_noticed(tmp_path: Path) -> None:
    code = """
import torch
here, there = torch.ones(2, device=pretend_device.NAME), torch.ones(2)
for mix in (lambda: here + there, lambda: there[here.long()], lambda: here.add_(there), lambda: here.numpy()):
    try:
        mix()
    except (pretend_device.MixedDevices, TypeError):
        found[str(len(found))] = 1.0
assert (here + 1).device.type == pretend_device.NAME and (here + here).cpu().tolist() == [2, 2]
assert here[torch.tensor([0])].tolist() == [1] and float(here.sum()) == 2
"""
    assert len(differences(code, tmp_path)) == 4


@pytest.mark.parametrize(
    ("code", "cases"), [(JUDGES, 16), (UNIFIED_REWARD, 8), (TRAINING, 8)], ids=["judges", "unifiedreward", "training"]
)
def test_results_are_those_of_the_cpu(code: str, cases: int, tmp_path: Path) -> None:
    found = differences(code, tmp_path)
    assert len(found) == cases
    # Pixels may be rounded to the next of 255 steps.
    allowed = {"clips": 1.01 / 255, "gradient": 1e-3}
    assert {name: value for name, value in found.items() if value > allowed.get(name.split(", ")[-1], 2e-5)} == {}
