"""Import a checkpoint in the public VideoReward layout into this project's folder of safetensors.

The import reads model_config.json, the highest (or given) checkpoint-<step> with weights and tokenizer, and the
architecture of the base model. LoRA is merged in float32. Special tokens are moved from vocabulary and tokenizer to
separate embeddings, so that no text can become one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward import public_weights as weights
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork, load_network
from vr_pipeline.rewards.videoreward.public_config import (
    CONFIG_FILE,
    PublicConfig,
    calibration_of,
    default_template,
    network_settings,
    read_calibration,
    read_config,
    token_of,
)
from vr_pipeline.rewards.videoreward.public_tokens import (
    read_tokenizer,
    special_token_ids,
    take_token_rows,
    without_tokens,
)
from vr_pipeline.rewards.videoreward.settings import ARTIFACT_FILE, Calibration, NetworkSettings
from vr_pipeline.storage.atomic import replaced_folder, sha256_of
from vr_pipeline.storage.models import check_model_files, load_complete, reason_in_short
from vr_pipeline.vlm.families import family_class

if TYPE_CHECKING:
    import torch

    from vr_pipeline.rewards.videoreward.public_weights import State
    from vr_pipeline.vlm.families.base import Settings

Precision = Literal["float32", "bfloat16", "float16"]
_FAMILIES = ("qwen2_vl", "qwen2_5_vl")
_MOST_FRAMES = 768


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        base: folder or hub name of the base model; None for the config.json in the checkpoint's folder, else the model
            of model_config.json.
        revision: commit of a base model on the hub.
        step: number of the checkpoint; None for the highest.
        template: file with the text after the clip; None for this project's wording.
        calibration: file with a normalisation; None for that of model_config.json.
        dtype: precision of the written weights.
    """

    base: str | None = None
    revision: str | None = None
    step: int | None = None
    template: Path | None = None
    calibration: Path | None = None
    dtype: Precision = "float32"


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    files: tuple[Path, ...]
    weights: int
    network: NetworkSettings
    calibration: Calibration | None
    own_wording: bool


def files_of(folder: Path, step: int | None = None) -> tuple[Path, ...]:
    """Return the files of weights that an import reads. Raises :class:`InputError` if there are none."""
    return weights.weight_files(_checkpoint(folder, step))


def import_checkpoint(folder: Path, target: Path, options: ImportOptions | None = None) -> Imported:
    """Convert a public checkpoint to a VideoReward folder.

    Args:
        folder: has model_config.json and checkpoint-<step>.
        target: new, empty, or a VideoReward folder, which is replaced.
        options: see :class:`ImportOptions`.

    Raises:
        InputError: a file, key, shape, token or number is missing, unknown or wrong; the target is then unchanged.
    """
    options = options or ImportOptions()
    if target.exists() and (not target.is_dir() or any(target.iterdir())) and not (target / ARTIFACT_FILE).is_file():
        raise InputError("the folder has other content", remedy="Give a new folder", file=target, field="--to")
    config = read_config(folder)
    checkpoint = _checkpoint(folder, options.step)
    files = weights.weight_files(checkpoint)
    states = [weights.read_state(path) for path in files]
    tokenizer = read_tokenizer(checkpoint / "tokenizer")
    architecture, source = _architecture(folder, checkpoint, config, options)
    state = states[0] if len(states) == 1 else _completed(states, config, architecture, source, options, files[1])
    prefix = weights.PEFT if config.lora.lora_enable else ""
    head = _needed(state, prefix + weights.HEAD, files[-1])
    settings = network_settings(config, _template(config, options), rows=len(head), source=options.template)
    _check_outputs(config, len(head), folder)
    _check_ranks(config, states[0], checkpoint, files[0])

    rows = len(_needed(state, prefix + weights.EMBEDDING, files[-1]))
    tokens = [token_of(name) for name in settings.names] if settings.pooling == "special" else []
    token_ids = special_token_ids(tokenizer, tokens, rows, checkpoint)
    model = _empty_model(architecture, rows - len(tokens))
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in (today for today in shapes if weights.old_name(today) in (weights.EMBEDDING, weights.OUTPUT)):
        shapes[name] = (rows, shapes[name][1])
    made = weights.merged(
        state,
        shapes,
        prefix=prefix,
        factor=config.lora.factor,
        every_layer=config.lora.num_lora_modules <= 0,
        file=files[-1],
    )
    token_rows = take_token_rows(made, token_ids, tied=architecture.tie_word_embeddings, file=files[-1])
    if head.shape[1] != token_rows.shape[1]:
        raise InputError(
            f"the weight has {head.shape[1]} columns, but the model's hidden size is {token_rows.shape[1]}",
            remedy="Download the checkpoint again",
            file=files[-1],
            field=prefix + weights.HEAD,
        )
    count = len(state)
    del state, states
    family = _family(model, made, without_tokens(tokenizer, tokens), config, options.dtype)
    del made
    calibration = (
        read_calibration(options.calibration) if options.calibration is not None else calibration_of(config, folder)
    )
    provenance = {
        "imported": "public VideoReward layout",
        "checkpoint": checkpoint.name,
        "base_model": config.model.model_name_or_path,
        "files": {path.name: sha256_of(path) for path in files},
        "wording": "own" if options.template is None else sha256_of(options.template),
    }
    network = VideoRewardNetwork(family, settings, token_rows, head)
    with replaced_folder(target) as fresh:
        network.save(fresh, calibration, provenance)
        del network, family, model
        load_network(fresh, dtype=options.dtype, device="cpu")
    return Imported(files, count, settings, calibration, own_wording=options.template is None)


def _checkpoint(folder: Path, step: int | None) -> Path:
    """Return the folder of a step. Raises :class:`InputError` if there is none."""
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_checkpoint(path)}
    if not found or (step is not None and step not in found):
        wanted = "checkpoint-<step>" if step is None else f"checkpoint-{step}"
        raise InputError(
            f"it has no folder {wanted}",
            remedy=f"Choose a step of {', '.join(map(str, sorted(found)))}"
            if found
            else "Give the folder of a published VideoReward checkpoint",
            file=folder,
        )
    return found[max(found) if step is None else step]


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name) is not None


def _architecture(folder: Path, checkpoint: Path, config: PublicConfig, options: ImportOptions) -> tuple[Any, str]:
    """Return the base model's configuration and its source.

    Raises:
        InputError: there is none, or it is of another kind of model.
    """
    import transformers

    beside = next((str(place) for place in (checkpoint, folder) if (place / "config.json").is_file()), None)
    source = options.base or beside or config.model.model_name_or_path
    revision = options.revision or (config.model.model_revision if options.base is None and beside is None else None)
    try:
        place = str(Path(source).expanduser())
        found = transformers.AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the architecture of the base model '{source}' cannot be read ({reason_in_short(error)})",
            remedy=f"Give a folder with config.json of {config.model.model_name_or_path}, or its name on the hub",
            field="--base",
        ) from error
    if found.model_type not in _FAMILIES:
        raise InputError(
            f"'{source}' is a model of type '{found.model_type}'",
            remedy=f"Give the base model of the checkpoint, of type {' or '.join(_FAMILIES)}",
            field="--base",
        )
    return found, source


def _model_class(architecture: Any) -> Any:
    import transformers

    return getattr(transformers, family_class(architecture.model_type).model_name)


def _completed(
    states: Sequence[State], config: PublicConfig, architecture: Any, source: str, options: ImportOptions, file: Path
) -> State:
    """Return the full state of an adapter, the fully trained weights and the base model.

    Raises:
        InputError: the base model's weights are unavailable or incomplete, or a part of the state is missing.
    """
    place = Path(source).expanduser()
    if place.is_dir():
        check_model_files(place, field="--base")
    try:
        base = load_complete(_model_class(architecture), str(place), field="--base", revision=options.revision)
    except OSError as error:
        raise InputError(
            f"an adapter needs the weights of its base model, but those of '{source}' cannot be read "
            f"({reason_in_short(error)})",
            remedy=f"Give the folder of {config.model.model_name_or_path} with its weights, or its name on the hub",
            field="--base",
        ) from error
    adapter, rest = states
    return weights.full_state(
        adapter,
        rest,
        {weights.old_name(name): tensor for name, tensor in base.state_dict().items()},
        vision_trained=not config.model.freeze_vision_tower,
        tied=architecture.tie_word_embeddings,
        file=file,
    )


def _template(config: PublicConfig, options: ImportOptions) -> str:
    if options.template is None:
        return default_template(config.dimensions, tokens=config.model.pooling == "special")
    try:
        # Editors add a final line break.
        return options.template.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError) as error:
        problem = f"it cannot be read ({reason_in_short(error)})"
        raise InputError(problem, remedy="Give a text file", file=options.template, field="--template") from error


def _check_outputs(config: PublicConfig, rows: int, folder: Path) -> None:
    if config.model.output_dim is not None and config.model.output_dim != rows:
        raise InputError(
            f"the head has {rows} outputs, but output_dim is {config.model.output_dim}",
            remedy="Download the checkpoint again",
            file=folder / CONFIG_FILE,
            field="model_config.output_dim",
        )


def _check_ranks(config: PublicConfig, state: State, checkpoint: Path, file: Path) -> None:
    """Reject LoRA matrices whose factor differs from that of the config."""
    for name, rank in weights.ranks(state).items():
        if config.lora.rank is not None and rank != config.lora.rank:
            raise InputError(
                f"the matrix has rank {rank}, but lora_r is {config.lora.rank}",
                remedy=f"Check that {CONFIG_FILE} belongs to this checkpoint",
                file=file,
                field=name,
            )
    path = checkpoint / "adapter_config.json"
    if not path.is_file():
        return
    try:
        given = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"it is not a JSON object ({error})", remedy="Download the file again", file=path) from error
    expected: dict[str, Any] = {
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "use_rslora": config.lora.use_rslora,
    }
    expected |= {"rank_pattern": {}, "alpha_pattern": {}, "use_dora": False}
    for name, value in expected.items():
        if given.get(name, value) != value:
            raise InputError(
                f"'{name}' is {given[name]}, but {value} by {CONFIG_FILE}",
                remedy="Check that both files belong to this checkpoint",
                file=path,
                field=name,
            )


def _needed(state: State, name: str, file: Path) -> torch.Tensor:
    if name not in state or state[name].ndim != 2:
        raise InputError(
            f"the weight '{name}' is missing" if name not in state else "it is not a matrix",
            remedy="Download the checkpoint again",
            file=file,
            field=name,
        )
    return state[name]


def _empty_model(architecture: Any, vocabulary: int) -> Any:
    """Return a model of the architecture without initial weights."""
    import torch
    from transformers.initialization import no_init_weights

    architecture.text_config.vocab_size = vocabulary
    with no_init_weights(), torch.random.fork_rng(devices=[]):
        return _model_class(architecture)._from_config(architecture, dtype=torch.float32)


def _family(model: Any, made: State, tokenizer: Any, config: PublicConfig, dtype: Precision) -> Any:
    """Return the family with the weights and the frame sampling of the checkpoint."""
    import torch

    precision = getattr(torch, dtype)
    model.load_state_dict({name: weight.to(precision) for name, weight in made.items()}, strict=True, assign=True)
    model.tie_weights()
    model.config.dtype = precision
    cls = family_class(model.config.model_type)
    settings: Settings = cls.default_settings.model_copy(
        update={
            "frames_per_second": config.data.fps,
            "num_frames": config.data.num_frames or _MOST_FRAMES,
            "max_pixels": config.data.max_frame_pixels,
        }
    )
    return cls(model.eval(), tokenizer, settings)
