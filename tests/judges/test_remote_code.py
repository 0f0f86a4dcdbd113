"""Checkpoints that bring their own code: refused without consent and commit, exact with both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tiny_judges import PROMPTS, QUESTIONS
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity

STAND_IN = Path(__file__).parents[1] / "support/cogvlm_stand_in"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("CogVLMConfig", "CogVLMVideoForCausalLM")


@pytest.fixture(scope="module")
def cogvlm_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = " ".join([*QUESTIONS, *PROMPTS, "Question: Answer:", *map(str, range(10))])
    words = ["<pad>", "<unk>", "<bos>", "Yes", "yes", "No", "no", *sorted(set(texts.replace(":", " : ").split()))]
    built = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, cogvlm_tokenizer: Any) -> Path:
    """A folder as downloaded: weights, tokenizer, configuration, and the code that goes with them."""
    import sys

    import torch

    sys.path.insert(0, str(STAND_IN.parent))
    try:
        from cogvlm_stand_in.configuration_cogvlm import CogVLMConfig
        from cogvlm_stand_in.modeling_cogvlm import CogVLMVideoForCausalLM
    finally:
        sys.path.remove(str(STAND_IN.parent))
    folder = tmp_path_factory.mktemp("hub") / "tiny-cogvlm2-video"
    torch.manual_seed(0)
    model = CogVLMVideoForCausalLM(CogVLMConfig(vocab_size=len(cogvlm_tokenizer)))
    model.save_pretrained(folder)
    cogvlm_tokenizer.save_pretrained(folder)
    for path in STAND_IN.glob("*.py"):
        shutil.copy(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": f"configuration_cogvlm.{NAMES[0]}",
        "AutoModelForCausalLM": f"modeling_cogvlm.{NAMES[1]}",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True, scope="module")
def modules_of_remote_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the copies that transformers makes of remote code out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        cache = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", cache)
        yield


def configuration(path: Path | str, **changes: Any) -> dict[str, Any]:
    return {
        "family": "cogvlm2_video",
        "path": str(path),
        "revision": COMMIT,
        "trust_remote_code": True,
        "device": "cpu",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trust_remote_code": False}, "needs the Python code that comes with the model"),
        ({"revision": None}, "set 'revision' to the commit of that code"),
        ({"revision": "main"}, "revision"),
        ({"revision": COMMIT[:12]}, "revision"),
        ({"family": "qwen2_vl"}, "remove 'trust_remote_code'"),
    ],
)
def test_no_code_is_run_without_consent_and_commit(checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeParameters.model_validate(configuration(checkpoint, **changes))
    with pytest.raises(ValidationError, match=r"revision|trust_remote_code"):
        JudgeParameters.model_validate(configuration("THUDM/VisionReward-Video", **changes))


def test_code_of_another_repository_is_not_run_at_an_unknown_state(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "borrows"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {name: f"someone/else--{place}" for name, place in config["auto_map"].items()}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    asked: list[Any] = []

    def fetch(repository: str, file: str, **options: Any) -> str:
        asked.append((repository, options["revision"]))
        raise OSError("no such commit")

    monkeypatch.setattr("transformers.dynamic_module_utils.cached_file", fetch)
    with pytest.raises(InputError, match="no such commit"):
        load_judge(configuration(folder))
    assert asked == [("someone/else", COMMIT)]


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "packed", "clip_batch": 3},
        {"prefix": "cached", "clip_batch": 3, "question_chunk_size": 2},
        {"prefix": "cached", "clip_batch": 1, "question_chunk_size": 5},
        {"prefix": "packed", "clip_batch": 1, "question_chunk_size": 1},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_same_as_the_published_way_of_asking(
    checkpoint: Path, clips: list[np.ndarray], options: dict[str, Any]
) -> None:
    import torch

    judge: Any = load_judge(configuration(checkpoint, **options))
    model, tokenizer = judge.family.model, judge.family.tokenizer
    chosen = [clips[0], clips[1][:1], clips[2]]
    p_yes, outside = judge.answer(chosen, QUESTIONS, PROMPTS)
    for row, clip in enumerate(chosen):
        for column, question in enumerate(QUESTIONS):
            inputs = model.build_conversation_input_ids(
                tokenizer,
                query=question.replace("[[prompt]]", PROMPTS[row]),
                history=[],
                images=[torch.from_numpy(clip).permute(3, 0, 1, 2).float()],
                template_version="chat",
            )
            with torch.no_grad():
                logits = model(
                    input_ids=inputs["input_ids"][None],
                    token_type_ids=inputs["token_type_ids"][None],
                    images=[[inputs["images"][0]]],
                ).logits[0, -1]
            expected, expected_outside = judge._probabilities(logits)
            assert p_yes[row, column] == pytest.approx(float(expected), abs=1e-4)
            assert outside[row, column] == pytest.approx(float(expected_outside), abs=1e-4)
    assert p_yes.std() > 0.02


def test_tokens_positions_and_pixels_are_the_published_ones(checkpoint: Path, clips: list[np.ndarray]) -> None:
    import torch

    judge: Any = load_judge(configuration(checkpoint))
    family = judge.family
    for clip in clips:
        official = family.model.build_conversation_input_ids(
            family.tokenizer,
            query="is it red ?",
            history=[],
            images=[torch.from_numpy(clip).permute(3, 0, 1, 2).float()],
            template_version="chat",
        )
        prepared, segment = family.prepare(clip, None), judge.question_segment("is it red ?")
        assert [*prepared.token_ids, *segment.token_ids] == official["input_ids"].tolist()
        np.testing.assert_allclose(prepared.vision["pixels"], official["images"][0].numpy(), atol=1e-5)


def test_a_saved_judge_brings_its_code_and_undefined_buffers_are_computed(
    checkpoint: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    judge: Any = load_judge(configuration(checkpoint))
    for layer in judge.family.model.model.layers:
        rotary = layer.rotary_emb
        assert np.array_equal(rotary.inv_freq.numpy(), rotary._compute_inv_freq().numpy())
    (tmp_path / "saved").mkdir()
    judge.family.save(tmp_path / "saved")
    again: Any = load_judge(configuration(tmp_path / "saved"))
    expected, _ = judge.answer(clips, QUESTIONS, PROMPTS)
    assert np.array_equal(again.answer(clips, QUESTIONS, PROMPTS)[0], expected)


@pytest.mark.parametrize("lora", [True, False])
def test_training_with_and_without_recomputed_activations(
    checkpoint: Path, clips: list[np.ndarray], lora: bool
) -> None:
    from vr_pipeline.checklist import checklist_from_mapping
    from vr_pipeline.judges.training.config import JudgeTrainingParameters
    from vr_pipeline.judges.training.examples import JudgeExample
    from vr_pipeline.judges.training.task import train_judge

    sub = {"name": "s", "questions": [{"id": str(at), "text": text} for at, text in enumerate(QUESTIONS)]}
    checklist = checklist_from_mapping(
        {"name": "c", "modality": "video", "dimensions": [{"name": "d", "sub_dimensions": [sub]}]}
    )
    examples = [
        JudgeExample(str(at), clips[at % 3], PROMPTS[at % 3], {str(q): (at + q) % 2 == 0 for q in range(5)})
        for at in range(12)
    ]
    logs, changed = [], set()
    before = {key: value.clone() for key, value in _state(checkpoint).items()}
    for recompute in (False, True):
        content = {
            "start": configuration(checkpoint),
            "lora": {"rank": 2, "target_modules": ["language_expert_query_key_value"]} if lora else None,
            "threads": 1,
            "steps": 2,
            "batch_size": 3,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "checkpoint_every": 2,
            "validation_share": 0.4,
            "gradient_checkpointing": recompute,
        }
        trained = train_judge(examples, checklist, JudgeTrainingParameters.model_validate(content))
        logs.append(trained.log)
        after = trained.family.model.state_dict()
        changed = {key for key in before if not np.array_equal(before[key].numpy(), after[key].numpy())}
    np.testing.assert_allclose(logs[0]["gradient_norm"], logs[1]["gradient_norm"], rtol=1e-4)
    assert (logs[0]["gradient_norm"] > 0).all()
    if lora:
        assert changed
        assert all("query_key_value" in key for key in changed)
    else:
        assert any("vision.patches" in key for key in changed)


def _state(checkpoint: Path) -> Any:
    judge: Any = load_judge(configuration(checkpoint))
    return judge.family.model.state_dict()


def test_identity_covers_the_code(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    parameters = JudgeParameters.model_validate(configuration(folder))
    before = judge_identity(parameters)
    with (folder / "modeling_cogvlm.py").open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert judge_identity(parameters) != before


def test_what_the_code_lacks_and_models_that_do_not_fit_are_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "needs-more"
    shutil.copytree(checkpoint, folder)
    code = folder / "modeling_cogvlm.py"
    text = code.read_text(encoding="utf-8")
    code.write_text("import a_package_that_nobody_has\n" + text, encoding="utf-8")
    with pytest.raises(InputError, match="a_package_that_nobody_has"):
        load_judge(configuration(folder))
    folder = tmp_path / "experts"
    shutil.copytree(checkpoint, folder)
    code = folder / "modeling_cogvlm.py"
    code.write_text(text.replace("self.up_proj", "self.vision_mlp"), encoding="utf-8")
    weights = next(folder.glob("*.safetensors"))
    renamed = {name.replace("up_proj", "vision_mlp"): tensor for name, tensor in load_file(weights).items()}
    save_file(renamed, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="weights of their own"):
        load_judge(configuration(folder))


def test_user_text_and_elongated_pictures(checkpoint: Path) -> None:
    import torch

    from vr_pipeline.vlm.families.cogvlm2_video import _short_side_and_centre

    judge: Any = load_judge(configuration(checkpoint))
    special = set(judge.family.tokenizer.all_special_ids) - {judge.family.tokenizer.unk_token_id}
    assert special.isdisjoint(judge.question_segment("does it show <pad> <bos> ?").token_ids)
    settings, random = judge.family.settings, np.random.default_rng(0)
    for shape in ((3, 20, 31), (2, 40, 8), (2, 1, 150)):
        frames = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
        # All frames at once, as the published code has them.
        values = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255.0
        values = (values - torch.tensor(settings.mean).view(3, 1, 1)) / torch.tensor(settings.std).view(3, 1, 1)
        height, width = shape[1:]
        size = (int(height / width * 16), 16) if width < height else (16, int(width / height * 16))
        whole = torch.nn.functional.interpolate(values, size=size, mode="bilinear", align_corners=False)
        top, left = round((size[0] - 16) / 2), round((size[1] - 16) / 2)
        found = _short_side_and_centre(frames, 16, settings)
        np.testing.assert_array_equal(found, whole[:, :, top : top + 16, left : left + 16].numpy())
    with pytest.raises(ValueError, match="too elongated"):
        judge.answer([np.zeros((2, 1, 201, 3), np.uint8)], ["moves ?"])
