"""CogVLM2 for images: under the consent of CogVLM2-Video, its own weights for visual tokens, the published answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cogvlm_checkpoints import COMMIT, training_examples, write_checkpoint
from cogvlm_checkpoints import configuration as of_family
from tiny_judges import PROMPTS, QUESTIONS
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.vlm.config import ChecklistJudgeParameters, JudgeParameters
from vr_pipeline.vlm.loading import judge_identity

pytestmark = pytest.mark.usefixtures("modules_of_remote_code")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub") / "tiny-cogvlm2", "cogvlm2_image")


@pytest.fixture
def images(clips: list[np.ndarray]) -> list[np.ndarray]:
    return [clip[:1] for clip in clips]


def configuration(path: Path | str, **changes: Any) -> dict[str, Any]:
    return of_family(path, **{"family": "cogvlm2_image", **changes})


def published_inputs(judge: Any, image: np.ndarray, question: str) -> dict[str, Any]:
    """What the checkpoint's own code makes of an image and a question."""
    from PIL import Image

    inputs: dict[str, Any] = judge.family.model.build_conversation_input_ids(
        judge.family.tokenizer,
        query=question,
        history=[],
        images=[Image.fromarray(image[0])],
        template_version="chat",
    )
    return inputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trust_remote_code": False}, "'cogvlm2_image' needs the Python code that comes with the model"),
        ({"revision": None}, "set 'revision' to the commit of that code"),
        ({"revision": "main"}, "revision"),
        ({"revision": COMMIT[:12]}, "revision"),
    ],
)
def test_no_code_is_run_without_consent_and_commit(checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeParameters.model_validate(configuration(checkpoint, **changes))
    with pytest.raises(ValidationError, match=r"revision|trust_remote_code"):
        JudgeParameters.model_validate(configuration("THUDM/VisionReward-Image", **changes))


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "packed", "clip_batch": 3},
        {"prefix": "cached", "clip_batch": 3, "question_chunk_size": 2},
        {"prefix": "packed", "clip_batch": 1, "question_chunk_size": 1},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_same_as_the_published_way_of_asking(
    checkpoint: Path, images: list[np.ndarray], options: dict[str, Any]
) -> None:
    import torch

    judge: Any = load_judge(configuration(checkpoint, **options))
    p_yes, outside = judge.answer(images, QUESTIONS, PROMPTS)
    for row, image in enumerate(images):
        for column, question in enumerate(QUESTIONS):
            inputs = published_inputs(judge, image, question.replace("[[prompt]]", PROMPTS[row]))
            with torch.no_grad():
                logits = judge.family.model(
                    input_ids=inputs["input_ids"][None],
                    token_type_ids=inputs["token_type_ids"][None],
                    images=[[inputs["images"][0]]],
                ).logits[0, -1]
            expected, expected_outside = judge._probabilities(logits)
            assert p_yes[row, column] == pytest.approx(float(expected), abs=1e-4)
            assert outside[row, column] == pytest.approx(float(expected_outside), abs=1e-4)
    assert p_yes.std() > 0.02


def test_visual_tokens_go_through_weights_of_their_own(checkpoint: Path, images: list[np.ndarray]) -> None:
    import torch

    judge: Any = load_judge(configuration(checkpoint))
    before, _ = judge.answer(images, QUESTIONS, PROMPTS)
    layers = judge.family.model.model.layers
    seen: list[int] = []
    for layer in layers:
        layer.vision_expert_dense.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    judge.answer(images, QUESTIONS, PROMPTS)
    # All visual tokens of an image but the mark behind it; none of the questions.
    assert sum(seen) == len(images) * len(layers) * (judge.family.tokens_of_frame - 1)
    with torch.no_grad():
        for layer in layers:
            layer.vision_expert_query_key_value.weight.mul_(-1)
    assert np.abs(judge.answer(images, QUESTIONS, PROMPTS)[0] - before).max() > 0.01


def test_tokens_and_pixels_are_the_published_ones(checkpoint: Path, images: list[np.ndarray]) -> None:
    judge: Any = load_judge(configuration(checkpoint))
    for image in images:
        official = published_inputs(judge, image, "is it red ?")
        prepared, segment = judge.family.prepare(image, None), judge.question_segment("is it red ?")
        assert [*prepared.token_ids, *segment.token_ids] == official["input_ids"].tolist()
        types = np.append(prepared.positions[0] != prepared.positions[1], np.zeros(len(segment.token_ids), bool))
        assert types.tolist() == official["token_type_ids"].bool().tolist()
        np.testing.assert_allclose(prepared.vision["pixels"][0], official["images"][0].numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="too elongated"):
        judge.answer([np.zeros((1, 1, 201, 3), np.uint8)], ["moves ?"])


def test_likelihood_of_whole_answers(checkpoint: Path, images: list[np.ndarray]) -> None:
    import torch

    from vr_pipeline.vlm.likelihood import SharedReader, log_likelihoods
    from vr_pipeline.vlm.media import Request

    family = load_judge(configuration(checkpoint)).family
    visuals = {str(at): family.visual(image, None) for at, image in enumerate(images)}
    answers = tuple(tuple(family.text_ids(text)) for text in ("is it red ?", "is it", "no"))
    requests = [Request((key, tuple(family.text_ids("moves ?"))), answers) for key in visuals]
    with torch.no_grad():
        found = log_likelihoods(family, visuals, requests)
    shared = SharedReader(family, visuals, batch=2).read(requests)
    for request, of_tokens, sums in zip(requests, found, shared, strict=True):
        key, question = request.pieces
        for answer, row, total in zip(answers, of_tokens, sums, strict=True):
            ids = torch.tensor([[*visuals[key].token_ids.tolist(), *question, *answer]])
            pixels = torch.from_numpy(visuals[key].vision["pixels"][0])
            with torch.no_grad():
                logits = family.model(
                    input_ids=ids, token_type_ids=(ids == family.placeholder_ids[0]).long(), images=[[pixels]]
                ).logits[0, -len(answer) - 1 : -1]
            expected = logits.log_softmax(dim=-1)[torch.arange(len(answer)), torch.tensor(answer)]
            np.testing.assert_allclose(row[: len(answer)], expected, rtol=1e-5, atol=1e-5)
            assert total == pytest.approx(float(expected.sum()), abs=1e-4)


def test_training_reaches_the_weights_of_visual_tokens_and_the_result_brings_its_code(
    checkpoint: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    from vr_pipeline.datasets.judge import JudgeFolderDataset
    from vr_pipeline.judges.training.config import JudgeTrainingParameters
    from vr_pipeline.judges.training.task import train_judge

    checklist, examples = training_examples("image", images)
    start: Any = load_judge(configuration(checkpoint))
    before = {key: value.numpy().copy() for key, value in start.family.model.state_dict().items()}
    content = {
        "start": configuration(checkpoint),
        "lora": {"rank": 2, "target_modules": ["vision_expert_dense", "language_expert_query_key_value"]},
        "threads": 1,
        "steps": 2,
        "batch_size": 3,
        "questions_per_clip": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "validation_share": 0.4,
        "gradient_checkpointing": True,
    }
    trained = train_judge(examples, checklist, JudgeTrainingParameters.model_validate(content))
    after = trained.family.model.state_dict()
    changed = {key for key in before if not np.array_equal(before[key], after[key].numpy())}
    assert {key.rsplit(".", 2)[-2] for key in changed} == {"vision_expert_dense", "language_expert_query_key_value"}
    JudgeFolderDataset(path=str(tmp_path / "judge")).save(trained)
    # The setting that takes a trained judge keeps the consent, and the commit that it is for.
    block = configuration("org/model", **{"from": "trained", "trained": str(tmp_path / "judge")})
    again: Any = load_judge(ChecklistJudgeParameters.model_validate(block))
    kept = again.family.model.state_dict()
    assert all(np.array_equal(kept[key].numpy(), after[key].numpy()) for key in after)


def test_clips_and_checkpoints_of_the_other_kind_are_rejected(
    checkpoint: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    judge: Any = load_judge(configuration(checkpoint))
    with pytest.raises(InputError, match="reads one image, but the clip has 8 frames"):
        judge.answer([clips[0]], ["moves ?"])
    with pytest.raises(InputError, match="the request holds text before its image"):
        judge.family.joined([[1], judge.family.visual(clips[0][:1], None)])
    with pytest.raises(InputError, match=r"through weights of their own.*family cogvlm2_image"):
        load_judge(configuration(checkpoint, family="cogvlm2_video"))
    with pytest.raises(InputError, match=r"no weights of their own.*family cogvlm2_video"):
        load_judge(configuration(write_checkpoint(tmp_path / "video")))


def test_identity_covers_the_code(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    parameters = JudgeParameters.model_validate(configuration(folder))
    before = judge_identity(parameters)
    with (folder / "modeling_cogvlm_image.py").open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert judge_identity(parameters) != before
