"""The secret of a study, for tokens of clips and proofs of annotators that nobody can guess."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from vr_pipeline.storage.atomic import replaced

_BYTES = 32


class StudySecret:
    """Derives tokens from random bytes in a file next to the journal."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def token(self, *parts: str | int) -> str:
        """Return a token of 32 hexadecimal digits: HMAC-SHA-256 of the parts, each preceded by its length."""
        encoded = (str(part).encode("utf-8", "surrogatepass") for part in parts)
        message = b"".join(len(part).to_bytes(8, "little") + part for part in encoded)
        return hmac.new(self._value, message, hashlib.sha256).hexdigest()[:32]

    def proves(self, annotator: str, proof: str) -> bool:
        """Return whether a proof is that of an annotator, in constant time."""
        return hmac.compare_digest(self.proof_of(annotator).encode(), proof.encode("utf-8", "surrogatepass"))

    def proof_of(self, annotator: str) -> str:
        """Return the proof of an annotator, for their browser."""
        return self.token("annotator", annotator)


def study_secret(journal: Path) -> StudySecret:
    """Read or make the secret of a journal, readable by its owner only; with a new one, annotators need new links."""
    path = journal.with_name(f".{journal.name}.secret")
    try:
        value = path.read_bytes()
    except FileNotFoundError:
        value = b""
    if len(value) != _BYTES:
        value = secrets.token_bytes(_BYTES)
        with replaced(path, mode=0o600) as temporary:
            temporary.write_bytes(value)
    path.chmod(0o600)
    return StudySecret(value)
