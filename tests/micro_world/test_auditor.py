"""The auditor: right about clips it has not seen, apart from everything that it audits, and the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.micro_world.auditor import Auditor
from vr_pipeline.micro_world.clips import RenderedClips, render_clips
from vr_pipeline.micro_world.preferences import UTILITY
from vr_pipeline.micro_world.world import ATTRIBUTES, Scene, render
from vr_pipeline.storage.atomic import sha256_of
from vr_pipeline.storage.tensors import write_tensors

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data/06_models/micro_world/auditor.safetensors"
QUESTIONS = list(UTILITY)


@pytest.fixture(scope="module")
def shipped() -> Auditor:
    return Auditor.load(SHIPPED)


@pytest.fixture(scope="module")
def held_out() -> RenderedClips:
    return render_clips(480, seed=1, purpose="held out")


def test_balanced_accuracy_on_clips_not_seen(shipped: Auditor, held_out: RenderedClips) -> None:
    from sklearn.metrics import balanced_accuracy_score

    predicted = shipped.probabilities(held_out.frames, held_out.judged_prompts, QUESTIONS)
    truth = held_out.labels(QUESTIONS)
    assert predicted.shape == (480, 16)
    assert ((predicted >= 0) & (predicted <= 1)).all()
    scores = {
        question: balanced_accuracy_score(truth[:, column], predicted[:, column] > 0.5)
        for column, question in enumerate(QUESTIONS)
    }
    assert np.mean(list(scores.values())) >= 0.99, scores
    assert min(scores.values()) >= 0.95, scores


def test_its_network_answers_as_that_of_scikit_learn(held_out: RenderedClips) -> None:
    """The forward pass, the frequencies that are read and the order of outputs are those that were fitted."""
    from scipy.fft import dctn
    from sklearn.neural_network import MLPClassifier

    frames, scenes = held_out.frames[:96], held_out.scenes[:96]
    own = Auditor.fit(frames, scenes, seed=3, num_features=40, hidden=8, epochs=3)
    spectrum = dctn(frames.astype(np.float32) / 127.5 - 1, axes=(1, 2, 3), norm="ortho").reshape(96, -1)
    left_out = np.delete(spectrum.std(axis=0), own.places)
    assert spectrum.std(axis=0)[own.places].min() >= left_out.max() - 1e-5
    values = (spectrum[:, own.places] - own.centre) / own.scale
    colours = np.array([[scene.colour == name for name in ATTRIBUTES["colour"]] for scene in scenes]).astype(int)
    reference = MLPClassifier((8,), max_iter=1, random_state=3).partial_fit(values, colours, classes=np.arange(4))
    reference.coefs_ = [own.first.astype(float), own.second[:, :4].astype(float)]
    reference.intercepts_ = [own.first_bias.astype(float), own.second_bias[:4].astype(float)]
    expected = reference.predict_proba(values)
    found = own.recognise(frames)["colour"]
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


def test_answers_on_a_prompt_are_those_on_what_it_names(shipped: Auditor) -> None:
    clip = render(Scene("red", "ball", "left", "black"))[None].repeat(3, axis=0)
    prompts = ["red ball moves left on black", "blue ball moves left on black", "red ring moves right on white"]
    asked = ["colour_matches", "shape_matches", "direction_matches", "background_matches"]
    answers = shipped.probabilities(clip, prompts, asked) > 0.5
    assert answers.tolist() == [[True] * 4, [False, True, True, True], [True, False, False, False]]
    free = shipped.probabilities(clip, prompts, ["sharp", "moves_fast"])
    # Matrix products may round equal rows differently.
    np.testing.assert_allclose(free, free[:1].repeat(3, axis=0), rtol=1e-9, atol=1e-12)


def test_an_answer_does_not_depend_on_the_clips_beside_it(shipped: Auditor, held_out: RenderedClips) -> None:
    together = shipped.recognise(held_out.frames[:7])
    for place in range(7):
        for name, alone in shipped.recognise(held_out.frames[place : place + 1]).items():
            np.testing.assert_allclose(alone[0], together[name][place], rtol=1e-9, atol=1e-12)


def test_two_fits_write_the_same_bytes_and_loading_changes_nothing(held_out: RenderedClips, tmp_path: Path) -> None:
    for name in ("first", "second"):
        made = Auditor.fit(held_out.frames[:96], held_out.scenes[:96], seed=0, num_features=30, hidden=6, epochs=2)
        made.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    loaded = Auditor.load(tmp_path / "first")
    for name, array in made.arrays().items():
        assert np.array_equal(array, loaded.arrays()[name])


def test_other_weights_are_rejected(shipped: Auditor, tmp_path: Path) -> None:
    path = tmp_path / "auditor.safetensors"
    arrays = shipped.arrays()
    for wrong in (
        {name: array for name, array in arrays.items() if name != "scale"},
        arrays | {"second": arrays["second"][:, 1:]},
        arrays | {"places": arrays["places"] + 7000},
    ):
        write_tensors(path, wrong)
        with pytest.raises(InputError, match="no weights of an auditor"):
            Auditor.load(path)


def test_the_card_names_the_shipped_files() -> None:
    """Every weight file beside the card has its hash there."""
    from vr_pipeline.micro_world.card import file_hashes

    card = (SHIPPED.parent / "README.md").read_text(encoding="utf-8")
    hashes = file_hashes(SHIPPED.parent)
    assert hashes["auditor.safetensors"] == sha256_of(SHIPPED)
    for path, digest in hashes.items():
        assert f"| {path} | `{digest}` |" in card, path
    assert SHIPPED.stat().st_size < 300_000


def _made_from(dataset: str, pipeline: Any) -> set[str]:
    """All datasets of a pipeline that depend on one."""
    found = {dataset}
    while True:
        further = {name for node in pipeline.nodes if found & set(node.inputs) for name in node.outputs} - found
        if not further:
            return found - {dataset}
        found |= further


def test_only_the_evaluation_reads_the_auditor_and_nothing_before_it_follows_from_it() -> None:
    from vr_pipeline.pipeline_registry import register_pipelines

    read = 0
    for name, pipeline in register_pipelines().items():
        for node in pipeline.nodes:
            if "auditor" not in node.inputs:
                continue
            short = node.name.rpartition(".")[2]
            # The card of the shipped models measures it on rendered clips.
            assert short in ("consult_auditor", "audit_pairs", "write_model_card"), (name, node.name)
            read += 1
        followed = _made_from("auditor", pipeline)
        reports = ("report_section_", "rewards_by_dimension", "training_curves")
        named = {"evaluation_auditor_rewards", "pair_audit", "evaluation_metrics", "headline_figures"}
        named |= {"evaluation_report", "micro_model_card"}
        assert {one for one in followed if not one.startswith(reports)} <= named, (name, followed)
    assert read >= 4


def test_no_parameter_names_the_auditor() -> None:
    """No checkpoint is scored by it, and no ensemble or reward in the shipped configuration has it."""
    files = [*(ROOT / "conf").rglob("*.yml")]
    assert len(files) > 20
    for path in files:
        if "catalog" in path.parts or path.name.startswith("catalog"):
            continue
        named = [line for line in path.read_text(encoding="utf-8").splitlines() if "auditor" in line]
        assert all("num_auditor_clips" in line or line.lstrip().startswith("#") for line in named), (path, named)


def test_metrics_of_the_other_sources_are_the_same_with_and_without_it() -> None:
    from tests.support.report_inputs import report_inputs

    from vr_pipeline.evaluation.metrics import evaluation_metrics, pairs_confirmed

    data = report_inputs()
    names = ("evaluation_rewards", "evaluation_oracle_rewards", "evaluation_video_index")
    judge, oracle, index = (data[name] for name in names)
    arguments = (judge, oracle, {}, index, None)
    pairs = {"dpo": data["preference_pairs_dpo"]}
    auditor = oracle.assign(total=lambda table: -table["total"])
    clips = {*pairs["dpo"]["winner_video_id"], *pairs["dpo"]["loser_video_id"]}
    scored = pd.DataFrame({"video_id": sorted(clips), "total": np.arange(len(clips), dtype=float)})
    audit = {"dpo": pairs_confirmed(pairs["dpo"], scored)}
    without = evaluation_metrics(*arguments, pairs)
    with_it = evaluation_metrics(*arguments, pairs, auditor_rewards=auditor, audit=audit)
    assert with_it["gain"]["mpo"]["auditor"]["mean"] == pytest.approx(-with_it["gain"]["mpo"]["oracle"]["mean"])
    for block in ("policies", "gain", "gain_by_dimension", "win_rate"):
        for record in with_it[block].values():
            record.pop("auditor")
    assert with_it["pairs"]["dpo"].pop("confirmed") == audit["dpo"]
    assert with_it == without


def test_confirmed_pairs_are_counted_by_hand() -> None:
    from vr_pipeline.evaluation.metrics import pairs_confirmed

    names = list("abcdefgh")
    scored = pd.DataFrame({"video_id": names, "total": [3.0, 1.0, 2.0, 2.0, 0.0, 5.0, 1.0, 0.5]})
    pairs = pd.DataFrame(
        {"winner_video_id": names[::2], "loser_video_id": names[1::2], "prompt_id": ["p", "p", "q", "r"]}
    )
    found = pairs_confirmed(pairs, scored)
    assert {name: found[name] for name in ("wins", "ties", "losses", "rate")} == {
        "wins": 2,
        "ties": 1,
        "losses": 1,
        "rate": 0.625,
    }
    assert "no_interval" in found
    # A pair whose clip has no score by the auditor is left out.
    assert pairs_confirmed(pairs, scored.iloc[:-1])["losses"] == 1
    assert pairs_confirmed(pairs, scored.iloc[:-1])["wins"] == 1


def test_its_seed_and_clips_are_no_other_models() -> None:
    """Its clips are drawn for a purpose of their own: no clip of the oracle or the judge is among them."""
    parameters = yaml.safe_load((ROOT / "conf/base/parameters/micro_world.yml").read_text())["micro_world"]
    own = {frame.tobytes() for frame in render_clips(96, seed=parameters["seed"], purpose="auditor").frames}
    for purpose in ("oracle", "judge train", "pretraining"):
        others = render_clips(96, seed=parameters["seed"], purpose=purpose).frames
        assert not own & {frame.tobytes() for frame in others}
