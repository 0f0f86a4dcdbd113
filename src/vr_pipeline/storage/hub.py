"""Models on the Hugging Face hub: whether they are in the cache or available, by one short request each."""

import json
from collections.abc import Iterable
from pathlib import Path

_SECONDS = 5.0
_GATED = "its owner gives it to known users only: accept its terms and set HF_TOKEN"


def is_local(path: str) -> bool:
    """Return whether a model's path can only be a folder; names on the hub are 'owner/name'."""
    return Path(path).is_absolute() or path.startswith((".", "~", "data/")) or path.count("/") != 1


def is_cached(name: str, revision: str | None) -> bool:
    """Return whether a model is complete in the local cache: a configuration, and all weights of its index."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
        return False
    weights = {path for path in folder.rglob("*.safetensors") if path.is_file()}
    for index in folder.rglob("*.safetensors.index.json"):
        named = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
        if any(index.parent / file not in weights for file in named):
            return False
    return bool(weights) and any(folder.glob("*.json"))


def unavailable(models: Iterable[tuple[str, str | None]]) -> dict[tuple[str, str | None], str]:
    """Return the models that are neither cached nor downloadable, with the reason.

    The hub gets one request per model, with a time limit of seconds, and none after a request without answer.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    reasons: dict[tuple[str, str | None], str] = {}
    silent = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    for name, revision in dict.fromkeys(models):
        if is_cached(name, revision):
            continue
        try:
            if not silent:
                information = HfApi().model_info(name, revision=revision, timeout=_SECONDS)
                if information.gated and get_token() is None:
                    reasons[name, revision] = _GATED
        except GatedRepoError:
            reasons[name, revision] = _GATED
        except RevisionNotFoundError:
            reasons[name, revision] = f"the hub has no revision {revision} of it"
        except (RepositoryNotFoundError, HFValidationError):
            reasons[name, revision] = "the hub does not know it, or not with this HF_TOKEN"
        except Exception as error:  # noqa: BLE001 - of whichever HTTP library the hub's client uses; it is reported
            silent = f"{constants.ENDPOINT} gives no answer ({type(error).__name__})"
        if silent:
            reasons[name, revision] = f"it is not in the cache, and {silent}"
    return reasons
