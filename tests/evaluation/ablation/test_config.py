"""Which trainings an ablation asks for, and with what settings."""

from __future__ import annotations

import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.ablation.config import AblationParameters, Training, settings_of, trainings_of
from vr_pipeline.training.config import DpoTrainingParameters

PARAMETERS = AblationParameters(
    objectives={"diffusion_dpo": {}, "mapo": {"loss": "mapo", "beta": 0.1, "lora": {"rank": 4}}},
    seeds=[0, 7],
    training={"steps": 20},
)
PIPELINE = DpoTrainingParameters.model_validate(
    {
        "training": {"beta": 30.0, "steps": 200, "warmup_steps": 5, "checkpoint_every": 50, "lora": {"alpha": 3.0}},
        "recipes": {"mpo": {"beta": 99.0}},
    }
)


def test_every_rule_is_trained_on_with_every_objective_and_seed() -> None:
    names = [training.name for training in trainings_of(PARAMETERS)]
    assert len(names) == len(set(names)) == 8
    assert names[0] == "dpo.diffusion_dpo.seed0"
    assert names[-1] == "mpo.mapo.seed7"


def test_settings_lie_over_each_other_and_no_checkpoint_is_chosen() -> None:
    plain = settings_of(Training("mpo", "diffusion_dpo", 0), PIPELINE, PARAMETERS)
    assert (plain.loss, plain.beta, plain.steps, plain.seed) == ("diffusion_dpo", 30.0, 20, 0)
    other = settings_of(Training("mpo", "mapo", 7), PIPELINE, PARAMETERS)
    assert (other.loss, other.beta, other.steps, other.seed, other.checkpoint_every) == ("mapo", 0.1, 20, 7, 0)
    assert (other.lora.rank, other.lora.alpha) == (4, 3.0)
    assert other.warmup_steps == 5


def test_settings_that_do_not_fit_are_named() -> None:
    wrong = PARAMETERS.model_copy(update={"objectives": {"mapo": {"loss": "mapo", "label_smoothing": 0.1}}})
    with pytest.raises(InputError, match="label_smoothing has no effect with loss mapo") as error:
        settings_of(Training("dpo", "mapo", 0), PIPELINE, wrong)
    assert "ablation.objectives.mapo" in str(error.value)
