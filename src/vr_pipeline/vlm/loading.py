"""From a configuration to a vision-language model."""

import json
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.devices import resolve_device
from vr_pipeline.runtime.environment import prepare_environment
from vr_pipeline.runtime.setting_names import validated
from vr_pipeline.storage.atomic import names_and_hashes
from vr_pipeline.storage.models import check_loading, check_model_files, incomplete_weights, load_complete
from vr_pipeline.vlm.config import NO_PART_OF_ANSWERS, JudgeParameters
from vr_pipeline.vlm.families import FAMILIES, family_class
from vr_pipeline.vlm.families.base import SETTINGS_FILE, Family, Settings
from vr_pipeline.vlm.quantisation import compute_exactly_on_cpu, quantisation_config

# What answers do not depend on, or depend on through the content hash of the model's files.
_NO_PART_OF_IDENTITY = {"path", "adapter", "device", "threads", "trust_remote_code", "server"}
_ASKED_OF_A_SERVER = {"path", "revision", "num_frames", "frames_per_second", "min_pixels", "max_pixels"}


def judge_identity(parameters: JudgeParameters) -> str:
    """Return content hash of the model's files (or its pinned revision) and of the settings; nothing is loaded.

    Of a model behind a server it is the name and what is asked of it, not the address, the key or the patience.

    Raises:
        InputError: the folder does not exist.
    """
    if parameters.server is not None:
        request = parameters.model_dump(mode="json", include=_ASKED_OF_A_SERVER)
        request["server"] = parameters.server.model_dump(mode="json", exclude=set(NO_PART_OF_ANSWERS))
        return content_hash("judge behind a server", json.dumps(request, sort_keys=True))
    # Answers from before this setting existed keep their identity.
    unset = {"before_clip"} if parameters.before_clip is None else set()
    settings = parameters.model_dump(mode="json", exclude=_NO_PART_OF_IDENTITY | unset)
    folder = Path(parameters.path).expanduser()
    model = parameters.path if _is_hub_name(parameters) else folder_hash(folder)
    adapter = _adapter_folder(parameters)
    version = family_class(parameters.family).answers_version
    return content_hash(
        "judge",
        json.dumps(settings, sort_keys=True),
        model,
        folder_hash(adapter) if adapter is not None else "",
        *([version] if version else []),
    )


def _adapter_folder(parameters: JudgeParameters) -> Path | None:
    """Return the adapter's folder, if one is configured. Raises :class:`InputError` where there is no adapter in it."""
    if parameters.adapter is None:
        return None
    folder = Path(parameters.adapter).expanduser()
    # Without this file the library would look for a pickled one of the same name.
    if not all((folder / name).is_file() for name in ("adapter_config.json", "adapter_model.safetensors")):
        raise InputError(
            "there is no adapter in this folder",
            remedy="Give a folder with adapter_config.json and adapter_model.safetensors",
            file=folder,
            field="judge.adapter",
        )
    return folder


def folder_hash(folder: Path) -> str:
    """Return content hash of the files of a model folder that loading it reads.

    Raises:
        InputError: the folder does not exist or has no config.
    """
    if not folder.is_dir() or not any(folder.glob("*.json")):
        raise InputError(
            "there is no model in this folder",
            remedy="Give the folder of a model, or train the judge with 'kedro run --pipeline=judge_training'",
            file=folder,
            field="judge.path",
        )
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model", ".py")
    )
    return content_hash("model", *names_and_hashes(files, folder))


def _model_bytes(folder: Path) -> int:
    """Return size of the weights in a model folder. Raises :class:`InputError` where there is no model."""
    if not folder.is_dir() or not any(folder.glob("*.json")):
        folder_hash(folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _is_hub_name(parameters: JudgeParameters) -> bool:
    return not Path(parameters.path).expanduser().exists() and parameters.revision is not None


def load_family(parameters: JudgeParameters) -> Family:
    """Load the model of a configuration by its family's transformers class, for inference.

    Raises:
        InputError: the family is unknown, the folder is missing or is no model, or its weights are not safetensors.
    """
    for field in ("path", "adapter"):
        if (name := getattr(parameters, field)) and (folder := Path(name).expanduser()).is_dir():
            check_model_files(folder, field=f"judge.{field}")
    cls = family_class(parameters.family)
    prepare_environment()

    import torch
    import transformers

    if parameters.threads is not None:
        torch.set_num_threads(parameters.threads)
    source, revision = parameters.path, None
    if _is_hub_name(parameters):
        revision = parameters.revision
    elif _model_bytes(Path(parameters.path).expanduser()) < 100_000_000:
        # A bar for a model that loads in no time hides what matters.
        transformers.utils.logging.disable_progress_bar()
    device = resolve_device(parameters.device)
    adapter = _adapter_folder(parameters)
    # The commit is given for the code too: code that a checkpoint takes from another repository, where this commit does
    # not exist, is then rejected instead of being run at whatever state it is in today.
    consent: dict[str, Any] = (
        {"trust_remote_code": True, "code_revision": parameters.revision} if cls.remote_code else {}
    )
    options: dict[str, Any] = {"dtype": getattr(torch, parameters.dtype), "revision": revision, **consent}
    if parameters.quantisation != "none":
        options["quantization_config"] = quantisation_config(parameters)
        options["device_map"] = {"": device}
    try:
        model_class = getattr(transformers, cls.model_name)
        if not cls.remote_code:
            _check_kind(model_class.config_class, source, revision, parameters.family)
        model = load_complete(model_class, source, field="judge.path", **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision, **consent)
    except OSError as error:
        if error.errno is not None:
            raise
        # What the library says of a model that cannot be fetched, or that lacks a file.
        raise InputError(
            f"the model '{source}' cannot be loaded: {' '.join(str(error).split())}",
            remedy="Where the hub cannot be reached, download the model elsewhere and give its folder as 'path'",
            field="judge.path",
        ) from error
    except ImportError as error:
        if not cls.remote_code:
            raise
        raise InputError(
            f"the code that comes with the model cannot be imported: {' '.join(str(error).split())}",
            remedy="Install what it names, in the versions that its model card gives",
            field="judge.path",
        ) from error
    compute_exactly_on_cpu(model)
    if adapter is not None:
        model = _with_adapter(model, adapter, merge=parameters.quantisation != "4bit" or device != "cpu")
    if parameters.quantisation == "none":
        model = model.to(device)
    return cls(model.eval(), tokenizer, read_settings(cls, source, parameters))


def _with_adapter(model: Any, folder: Path, *, merge: bool) -> Any:
    """Return the model with an adapter of PEFT, merged or beside it. Raises :class:`InputError` if it does not fit."""
    import warnings

    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(folder))
        # Only the second loading reports.
        report = adapted.load_adapter(str(folder), adapted.active_adapter)
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise incomplete_weights(str(folder), " ".join(str(error).split())[:300], field="judge.adapter") from error
    loading = {"missing_keys": report.missing_keys, "unexpected_keys": report.unexpected_keys}
    check_loading(loading, str(folder), field="judge.adapter")
    # Merging unpacks 4-bit weights, wrongly on some processors: see compute_exactly_on_cpu.
    return adapted.merge_and_unload() if merge else adapted.base_model.model


def _check_kind(config_class: Any, source: str, revision: str | None, family: str) -> None:
    """Reject a model of another kind, of which the library would make a random one of the kind's default size."""
    found, _ = config_class.get_config_dict(source, revision=revision)
    if (kind := found.get("model_type")) != config_class.model_type:
        raise InputError(
            f"'{source}' holds a model of kind '{kind}'" if kind else f"'{source}' lacks a config.json of a model",
            remedy=f"Family '{family}' reads models of kind '{config_class.model_type}': name the family that fits, or "
            "complete the folder",
            field="judge.family" if kind else "judge.path",
        )


def family_name(family: Family) -> str:
    """Return the name of a family in :data:`vr_pipeline.vlm.families.FAMILIES`.

    Raises:
        InputError: it is not among them, so that nobody could load a folder of it.
    """
    kind = type(family)
    place = f"{kind.__module__}:{kind.__qualname__}"
    for name, found in FAMILIES.items():
        if found == place:
            return name
    raise InputError(f"the family {place} is not among the known ones", remedy="Add a line to FAMILIES", field="family")


def read_settings(cls: type[Family], source: str, parameters: JudgeParameters) -> Settings:
    """Return the family's defaults, changed by judge.json beside the weights, changed by the configuration.

    Raises:
        InputError: judge.json cannot be read, or a setting in it is unknown or wrong.
    """
    values = cls.default_settings.model_dump()
    path = Path(source).expanduser() / SETTINGS_FILE
    if path.exists():
        try:
            values |= dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"it is not a JSON object ({error})", remedy="Correct it", file=path) from None
    for name in ("min_pixels", "max_pixels", "before_clip"):
        if getattr(parameters, name) is not None:
            values[name] = getattr(parameters, name)
    return validated(cls.settings_class, values, remedy="Correct or remove this setting", file=path)
