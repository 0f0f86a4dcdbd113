"""Checkpoints that bring their own code: rejected without consent and commit, exact with both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cogvlm_checkpoints import COMMIT, configuration, training_examples, write_checkpoint
from tiny_judges import PROMPTS, QUESTIONS
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity

pytestmark = pytest.mark.usefixtures("modules_of_remote_code")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub") / "tiny-cogvlm2-video")


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


def test_likelihood_of_whole_answers(checkpoint: Path, clips: list[np.ndarray]) -> None:
    import torch

    from vr_pipeline.vlm.likelihood import SharedReader, log_likelihoods
    from vr_pipeline.vlm.media import Request

    family = load_judge(configuration(checkpoint)).family
    visuals = {str(at): family.visual(clip, None) for at, clip in enumerate(clips)}
    answers = tuple(tuple(family.text_ids(text)) for text in ("is it red ?", "is it", "no", "Yes moves ?"))
    questions = [tuple(family.text_ids(text)) for text in ("moves ?", "moves ? is it")]
    requests = [Request((key, question), answers) for key in visuals for question in questions]
    with torch.no_grad():
        found = log_likelihoods(family, visuals, requests)
        single = log_likelihoods(family, visuals, [Request(requests[0].pieces, answers[:1])])
    shared = SharedReader(family, visuals, batch=2).read(requests)
    np.testing.assert_allclose(single[0][0], found[0][0], atol=1e-5)
    for request, of_tokens, sums in zip(requests, found, shared, strict=True):
        key, question = request.pieces
        pixels = torch.from_numpy(visuals[key].vision["pixels"])
        for answer, row, total in zip(answers, of_tokens, sums, strict=True):
            ids = torch.tensor([[*visuals[key].token_ids.tolist(), *question, *answer]])
            with torch.no_grad():
                # The first token and the clip's are of one type, text is of the other.
                types = (ids == family.placeholder_ids[0]).long()
                logits = family.model(
                    input_ids=ids,
                    token_type_ids=types,
                    images=[[pixels]],
                ).logits[0, -len(answer) - 1 : -1]
            expected = logits.float().log_softmax(dim=-1)[torch.arange(len(answer)), torch.tensor(answer)]
            np.testing.assert_allclose(row[: len(answer)], expected, rtol=1e-5, atol=1e-5)
            assert total == pytest.approx(float(expected.sum()), abs=1e-4)


def test_only_one_clip_which_stands_first(checkpoint: Path, clips: list[np.ndarray]) -> None:
    family = load_judge(configuration(checkpoint)).family
    visual, text = family.visual(clips[1], None), family.text_ids("moves ?")
    for pieces, message in [
        ([visual, text, visual], "the request holds 2 clips or images"),
        ([text, visual], "the request holds text before its clip"),
        ([text], "the request holds 0 clips or images"),
    ]:
        with pytest.raises(InputError, match=message):
            family.joined(pieces)


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
    from vr_pipeline.judges.training.config import JudgeTrainingParameters
    from vr_pipeline.judges.training.task import train_judge

    checklist, examples = training_examples("video", clips)
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
