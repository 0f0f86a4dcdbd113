"""From a folder or the hub to a pipeline of diffusers whose settings are known and whose weights are whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Part
from vr_pipeline.generators.prompt_texts import TEXT_ENCODERS, TOKENIZERS
from vr_pipeline.generators.settings import Relied, check_settings
from vr_pipeline.storage.models import check_model_files, load_complete, without_load_reports
from vr_pipeline.storage.tensors import check_precision

_FIELD = "generator.path"


def load_pipeline(
    pipeline: Any,
    parameters: GeneratorParameters,
    names: Mapping[Part, Sequence[str]],
    parts: Collection[Part],
    *,
    relied_on: Relied,
    own_classes: Mapping[str, type],
    precisions: Mapping[Part, str],
    optional: Collection[str] = (),
    **components: Any,
) -> Any:
    """Load some parts of a model as a pipeline; safetensors only.

    Args:
        names: what the pipeline calls each part.
        own_classes: classes of parts that are not from diffusers or transformers.
        precisions: precision of parts that have another than the parameters say.
        optional: those of the names that a model may lack.
        components: parts that are there already, and options of the pipeline.

    Raises:
        InputError: the model cannot be fetched, is not of the family's kind, or its weights are not whole.
    """
    import inspect

    import torch

    folder = model_folder(pipeline, parameters)
    known = inspect.signature(pipeline.__init__).parameters
    tokenizers = [name for name in TOKENIZERS if name in known]
    everything = [*tokenizers, *(name for of_part in names.values() for name in of_part), "scheduler"]
    classes = check_settings(
        folder, pipeline, everything, relied_on, own_classes=own_classes, field=_FIELD, optional=optional
    )
    for part, of_part in names.items():
        dtype = getattr(torch, precisions.get(part, parameters.dtype))
        for name in of_part:
            if name in optional and name not in classes:
                continue
            if part not in parts:
                components.setdefault(name, None)
            elif name not in components:
                check_precision(folder / name, field=_FIELD)
                components[name] = load_complete(classes[name], folder / name, field=_FIELD, dtype=dtype)
    with without_load_reports():
        loaded = pipeline.from_pretrained(folder, **components)
    _check_vocabulary(loaded, folder)
    if parameters.vae_tiling and loaded.vae is not None:
        loaded.vae.enable_tiling()
    return loaded


def model_folder(pipeline: Any, parameters: GeneratorParameters) -> Path:
    """Return the folder of a model, fetched from the hub where the parameters name one there.

    Raises:
        InputError: if it cannot be fetched, or holds weights that are no safetensors.
    """
    folder = Path(parameters.path).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(pipeline.download(parameters.path, revision=parameters.revision, use_safetensors=True))
        except OSError as error:
            if error.errno is not None:
                raise
            raise InputError(
                f"the model '{parameters.path}' cannot be fetched: {' '.join(str(error).split())}",
                remedy="where the hub cannot be reached, download the model elsewhere and give its folder as 'path'",
                field=_FIELD,
            ) from error
    check_model_files(folder, field=_FIELD)
    return folder


def _check_vocabulary(pipeline: Any, folder: Path) -> None:
    """See that every text encoder knows all tokens that its tokenizer may give it."""
    for name in TEXT_ENCODERS:
        encoder = getattr(pipeline, name, None)
        tokenizer = getattr(pipeline, name.replace("text_encoder", "tokenizer"), None)
        if (
            encoder is not None
            and tokenizer is not None
            and len(tokenizer) > (known := encoder.config.get_text_config().vocab_size)
        ):
            raise InputError(
                f"the tokenizer has {len(tokenizer)} tokens, and the {name} knows {known}",
                remedy="give the model the tokenizer that it was trained with",
                file=folder / name.replace("text_encoder", "tokenizer"),
                field=_FIELD,
            )
