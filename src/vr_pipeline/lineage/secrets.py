"""Detection of secrets that records must not contain: passwords, tokens and keys, by names and formats."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

HIDDEN = "[redacted]"

_FORMS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
    r"(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    "AWS key": r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[0-9A-Za-z]{20,}|github_pat_[0-9A-Za-z_]{22,})",
    "GitLab token": r"\bgl(?:pat|dt|rt|ptt|soat|cbt)-[0-9A-Za-z_-]{20,}",
    "Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "Slack token": r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]+",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}|\bya29\.[0-9A-Za-z_-]{20,}",
    "key of an AI service": r"\bsk-(?:ant-|proj-|or-|live-)?[A-Za-z0-9_-]{20,}",
    "Stripe key": r"\b(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,}",
    "Weights & Biases key": r"\bwandb_v1_[0-9A-Za-z_]{20,}",
    "npm token": r"\bnpm_[0-9A-Za-z]{30,}",
    "PyPI token": r"\bpypi-[0-9A-Za-z_-]{40,}",
    "Databricks token": r"\bdapi[0-9a-f]{32}(?:-\d)?\b",
    "SendGrid key": r"\bSG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}",
    "Azure key": r"(?i)\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/=]{20,}|[?&]sig=[A-Za-z0-9%+/=]{20,}",
    "signed address": r"(?i)(?<=X-Amz-Signature=)[0-9a-f]{32,}|(?<=X-Goog-Signature=)[0-9a-f]{32,}",
    "JSON web token": r"\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*",
    "login in a header": r"(?i)\b(?:Bearer|Basic|Token)\s+(?=\S*\d)[A-Za-z0-9._~+/-]{16,}=*",
    "age key": r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,}",
}
_EXACT = {name: re.compile(form) for name, form in _FORMS.items()}
_IN_ADDRESS = re.compile(r"(?<=://)(?P<user>[^\s/@:'\"]*):(?P<word>[^\s/'\"]+)@|(?<=://)(?P<token>[^\s/@:'\"]{16,})@")

_NAME = (
    r"(?:[\w.-]*[_.-])?(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?|"
    r"secret[_-]?key|private[_-]?key|auth[_-]?key|client[_-]?secret|account[_-]?key|sas[_-]?token|connection[_-]?string|"
    r"session[_-]?key|encryption[_-]?key|signing[_-]?key|webhook[_-]?url|bearer|authorization)"
)
_SECRET_NAME = re.compile(_NAME + r"(?:[_.-]?(?:id|value|text|\d+))?", re.IGNORECASE)
_NOT_SECRET = re.compile(
    r"(?i)(?:.*[_.-])?(?:max|min|num|new|pad|eos|bos|unk|sep|cls|mask|image|video|special|yes|no)[_.-]?token"
)
_ASSIGNED = re.compile(
    rf"(?P<name>(?<![\w.-]){_NAME})(?P<mark>[\"']?\s*(?:=|:)\s*)(?P<quote>[\"']?)(?P<value>[^\s\"',;&{{}}()\[\]$<>|]{{4,}})",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"(?i)(?:true|false|none|null|[\d.]+|str|int|bytes|bool|os\.environ.*|self\..*|\*+|\[redacted)\W*")
_LIKE_A_WORD = re.compile(r"[A-Za-z_.]+|.{1,7}|(?:\w+\.)+\w+")
"""Unquoted values in a program: usually other names."""

_FILES = re.compile(
    r"(?i)(?:\.env|.*\.env|\.env\..*|\.envrc|credentials.*|.*[_.-]credentials.*|.*secrets?\.(?:ya?ml|json|toml|ini|env|txt)|"
    r"\.netrc|_netrc|\.pgpass|\.my\.cnf|\.npmrc|\.pypirc|\.htpasswd|\.git-credentials|\.dockercfg|kubeconfig.*|"
    r"id_(?:rsa|dsa|ecdsa|ed25519).*|.*\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|asc|gpg|pgp|age|ovpn|p8|der|crt\.key)|"
    r"service[_-]?account.*\.json|client_secret.*\.json|token(?:s)?(?:\.(?:json|txt|ya?ml))?|config\.local|"
    r"terraform\.tfstate.*|.*\.tfvars|\.vault[_-]pass.*|\.password.*|passwords?(?:\.(?!py$).*)?)"
)
_FOLDERS = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", "secrets", ".secrets"})


def is_secret_file(path: str) -> bool:
    """Return whether a file contains credentials or keys, by its name and folder."""
    place = PurePosixPath(path.replace("\\", "/"))
    if place.name.lower() in {".env.example", ".env.sample", ".env.template"}:
        return False
    return bool(_FILES.fullmatch(place.name)) or any(part.lower() in _FOLDERS for part in place.parts[:-1])


def is_secret_name(name: str) -> bool:
    """Return whether a setting's value is a secret: ``token``, ``db_password``, ``api-key``; not ``max_tokens``."""
    last = name.rpartition(".")[2]
    return bool(_SECRET_NAME.fullmatch(last)) and not _NOT_SECRET.fullmatch(last)


def redacted(text: str) -> str:
    """Return the text without anything that looks like a secret."""
    return redaction(text)[0]


def redaction(text: str, *, code: bool = False) -> tuple[str, list[str]]:
    """Return the text without anything that looks like a secret, and the kinds found.

    Args:
        text: any.
        code: it is a program, in which ``token=tokenizer`` is not a secret but ``token="..."`` is.
    """
    kinds: list[str] = []

    def hide(kind: str, found: re.Match[str], kept: str = "") -> str:
        if HIDDEN in found[0]:
            return found[0]
        kinds.append(kind)
        # Keep the number of lines, which a patch states.
        return f"{kept}{HIDDEN}" + _lines_of(found[0])

    for kind, form in _EXACT.items():
        text = form.sub(lambda found, kind=kind: hide(kind, found), text)  # type: ignore[misc]
    text = _IN_ADDRESS.sub(lambda found: _address(found, kinds), text)
    text = _ASSIGNED.sub(lambda found: _assigned(found, kinds, code), text)
    return text, list(dict.fromkeys(kinds))


def _lines_of(text: str) -> str:
    """Return placeholders for the further lines of a removed text, with the marks of a patch."""
    return "".join(f"\n{line[:1] if line[:1] in '+- ' else ''}{HIDDEN}" for line in text.split("\n")[1:])


def _address(found: re.Match[str], kinds: list[str]) -> str:
    if found["word"] == HIDDEN or found["token"] == HIDDEN:
        return found[0]
    kinds.append("password in an address")
    return f"{found['user']}:{HIDDEN}@" if found["word"] is not None else f"{HIDDEN}@"


def _assigned(found: re.Match[str], kinds: list[str], code: bool) -> str:
    if not is_secret_name(found["name"]) or _PLAIN.fullmatch(found["value"]):
        return found[0]
    if code and not found["quote"] and _LIKE_A_WORD.fullmatch(found["value"]):
        return found[0]
    kinds.append(f"value of '{found['name']}'")
    return f"{found['name']}{found['mark']}{found['quote']}{HIDDEN}"


def without_secrets(value: Any, name: str = "") -> Any:
    """Return settings, at any depth, without values of secret names or anything that looks like a secret."""
    if isinstance(value, Mapping):
        return {key: without_secrets(entry, str(key)) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(entry, name) for entry in value]
    if isinstance(value, str) and value:
        return HIDDEN if is_secret_name(name) else redacted(value)
    return value


def holds_redaction(value: Any) -> bool:
    """Return whether a recorded value was redacted, at any depth."""
    if isinstance(value, Mapping):
        return any(map(holds_redaction, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_redaction, value))
    return isinstance(value, str) and HIDDEN in value
