"""The public VideoReward layout besides weights: model_config.json and the text of its questions."""

import re
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.settings import Calibration, DimensionSettings, NetworkSettings
from vr_pipeline.runtime.setting_names import read_settings, setting_trouble, validated

CONFIG_FILE: Final = "model_config.json"
_END: Final = "<|im_end|>\n<|im_start|>assistant\n"
_PUBLIC_PLACEHOLDER: Final = "{text_prompt}"
_RUBRICS: Final = {
    "VQ": "Visual quality: are the frames sharp, clean, well lit and free of broken shapes?",
    "MQ": "Motion quality: is the motion smooth, steady and physically plausible, without jumps or flicker?",
    "TA": "Text alignment: does the video show the objects, actions and style that the prompt asks for?",
}
_FREE_OF_PROMPT: Final = ("VQ", "MQ")


class _Section(BaseModel):
    """A section of which only some fields are used."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class _Data(_Section):
    eval_dim: list[str] | str = Field(default=["VQ", "MQ", "TA"])
    fps: float = Field(2.0, gt=0)
    num_frames: int | None = Field(None, ge=1)
    max_frame_pixels: int = Field(200_704, ge=1)


class _Model(_Section):
    model_name_or_path: str = "Qwen/Qwen2-VL-2B-Instruct"
    model_revision: str | None = None
    output_dim: int | None = Field(None, ge=1)
    use_special_tokens: bool = True
    reward_token: Literal["special", "last", "mean"] | None = None
    freeze_vision_tower: bool = False

    @property
    def pooling(self) -> Literal["special", "last", "mean"]:
        """Pooling of hidden states."""
        return self.reward_token or ("special" if self.use_special_tokens else "last")


class _Lora(_Section):
    lora_enable: bool = True
    rank: int | None = Field(None, ge=1, validation_alias=AliasChoices("lora_r", "r"))
    alpha: float | None = Field(None, gt=0, allow_inf_nan=False, validation_alias="lora_alpha")
    use_rslora: bool = False
    num_lora_modules: int = -1

    @property
    def factor(self) -> float | None:
        """Factor of B A in a merged weight, alpha / r or rank-stabilised; None if the file lacks it."""
        if self.rank is None or self.alpha is None:
            return None
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)


class PublicConfig(_Section):
    """The sections of model_config.json that affect scores; unknown fields are ignored."""

    data: _Data = Field(default_factory=_Data, validation_alias="data_config")
    model: _Model = Field(default_factory=_Model, validation_alias="model_config")
    lora: _Lora = Field(default_factory=_Lora, validation_alias="peft_lora_config")
    inference: dict[str, Any] | None = Field(None, validation_alias="inference_config")

    @property
    def dimensions(self) -> list[str]:
        """Names of the dimensions, in the order of their tokens."""
        return [self.data.eval_dim] if isinstance(self.data.eval_dim, str) else list(self.data.eval_dim)


def read_config(folder: Path) -> PublicConfig:
    """Read model_config.json of a folder. Raises :class:`InputError` if it is missing or invalid."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"there is no {CONFIG_FILE}",
            remedy="Give the folder of a published VideoReward checkpoint, with model_config.json and "
            "checkpoint-<step>",
            file=folder,
        )
    return read_settings(path, PublicConfig, remedy="Correct the file, or download it again")


def calibration_of(config: PublicConfig, folder: Path) -> Calibration | None:
    """Return the normalisation of a config (``<name>_mean`` and ``<name>_std``), or None.

    Raises:
        InputError: a number is missing or invalid.
    """
    given = config.inference or {}
    wanted = [f"{name}_{kind}" for name in config.dimensions for kind in ("mean", "std")]
    if not any(name in given for name in wanted):
        return None
    for name in wanted:
        if name not in given:
            raise InputError(
                f"the normalisation lacks '{name}'",
                remedy="Complete it, or give a normalisation with --calibration",
                file=folder / CONFIG_FILE,
                field=f"inference_config.{name}",
            )
    values = {
        "mean": {name: given[f"{name}_mean"] for name in config.dimensions},
        "deviation": {name: given[f"{name}_std"] for name in config.dimensions},
    }
    return validated(Calibration, values, remedy="Correct the number", file=folder / CONFIG_FILE)


def read_calibration(path: Path) -> Calibration:
    """Read a normalisation, JSON as in reward.json. Raises :class:`InputError` if it is missing or invalid."""
    return read_settings(path, Calibration, remedy="Give a JSON file with mean and deviation by dimension")


def default_template(dimensions: list[str], *, tokens: bool) -> str:
    """Return this project's text; scores of a checkpoint are right only with the text of its training."""
    lines = ["You see a video that a model made from a text prompt. Rate it on each of these points."]
    early = [name for name in dimensions if name in _FREE_OF_PROMPT]
    late = [name for name in dimensions if name not in early]
    for name in [*early, *late]:
        lines.append(_RUBRICS.get(name, f"{name}: how good is the video in this respect?"))
        if name in late[:1]:
            lines.append(f"Prompt: {PROMPT_PLACEHOLDER}")
        if tokens:
            lines.append(token_of(name))
    if not late:
        lines.append(f"Prompt: {PROMPT_PLACEHOLDER}")
    return "\n".join(lines)


def token_of(name: str) -> str:
    """Return the special token of a dimension in the public vocabulary."""
    return f"<|{name}_reward|>"


def network_settings(config: PublicConfig, template: str, *, rows: int, source: Path | None = None) -> NetworkSettings:
    """Return dimensions, texts and head of a checkpoint.

    Args:
        config: of the checkpoint.
        template: text of the user's turn after the clip, with the special tokens, and ``{text_prompt}`` or
            ``[[prompt]]`` for the prompt.
        rows: number of the head's outputs.
        source: file of the template, for messages.

    Raises:
        InputError: the prompt or a token is not exactly once in the template, or the number of outputs is wrong.
    """
    text = template.replace(_PUBLIC_PLACEHOLDER, PROMPT_PLACEHOLDER)
    names, pooling = config.dimensions, config.model.pooling
    if text.count(PROMPT_PLACEHOLDER) != 1:
        raise _template_trouble(
            f"it has the prompt ({_PUBLIC_PLACEHOLDER}) {text.count(PROMPT_PLACEHOLDER)} times, not once", source
        )
    for name in names:
        count, wanted = text.count(token_of(name)), int(pooling == "special")
        if count != wanted:
            raise _template_trouble(f"it has the token {token_of(name)} {count} times, not {wanted}", source)
    if rows not in (1, len(names)):
        raise InputError(
            f"the head has {rows} outputs, but there are {len(names)} dimensions ({', '.join(names)})",
            remedy="Correct eval_dim",
            field="data_config.eval_dim",
        )
    try:
        dimensions, prompt_text, end = _parts(text, names)
        return NetworkSettings(
            dimensions=dimensions,
            prompt_text=prompt_text,
            end=end + _END,
            head="separate" if rows > 1 else "shared",
            pooling=pooling,
        )
    except ValidationError as error:
        field, problem = setting_trouble(error, NetworkSettings)
        raise InputError(problem, remedy=f"Correct {CONFIG_FILE}", field=field or "model_config") from error


def _parts(text: str, names: list[str]) -> tuple[tuple[DimensionSettings, ...], str, str]:
    """Return the dimensions in the order of their tokens, the text of the prompt, and the end.

    Text before a token is its dimension's rubric; text around the prompt belongs to the prompt. Without tokens, all
    dimensions see the prompt, to which all text belongs.
    """
    by_token = {token_of(name): name for name in names}
    pieces = re.split(f"({'|'.join(map(re.escape, by_token))})", text)
    if len(pieces) == 1:
        return tuple(DimensionSettings(name=name, sees_prompt=True) for name in names), text, ""
    dimensions, prompt_text, seen = [], PROMPT_PLACEHOLDER, False
    for piece, token in zip(pieces[0:-1:2], pieces[1::2], strict=True):
        rubric = piece
        if PROMPT_PLACEHOLDER in piece:
            seen, prompt_text, rubric = True, piece, ""
        dimensions.append(DimensionSettings(name=by_token[token], rubric=rubric, sees_prompt=seen))
    # No token sees a prompt after all tokens.
    return tuple(dimensions), prompt_text, "" if PROMPT_PLACEHOLDER in pieces[-1] else pieces[-1]


def _template_trouble(problem: str, source: Path | None) -> InputError:
    return InputError(
        problem,
        remedy="Give the text after the clip as in the checkpoint's training, with special tokens",
        file=source,
        field="--template",
    )
