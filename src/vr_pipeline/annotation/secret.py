"""The secret of a study: names of clips and proofs of annotators that nobody can compute from what the page shows."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from vr_pipeline.storage.atomic import replaced

_BYTES = 32


class StudySecret:
    """Derive tokens from random bytes that lie beside the journal and never leave the machine."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def token(self, *parts: str | int) -> str:
        """Return a token of 32 hexadecimal digits: HMAC-SHA-256 of the parts, each preceded by its length."""
        encoded = (str(part).encode("utf-8", "surrogatepass") for part in parts)
        message = b"".join(len(part).to_bytes(8, "little") + part for part in encoded)
        return hmac.new(self._value, message, hashlib.sha256).hexdigest()[:32]

    def proves(self, annotator: str, proof: str) -> bool:
        """Check a proof of being an annotator, in a time that does not depend on it."""
        return hmac.compare_digest(self.proof_of(annotator).encode(), proof.encode("utf-8", "surrogatepass"))

    def proof_of(self, annotator: str) -> str:
        """Return what the browser of an annotator holds."""
        return self.token("annotator", annotator)


def study_secret(journal: Path) -> StudySecret:
    """Read the secret of a journal, or make one; the file is readable by its owner only.

    Without the file (a fresh clone, where git ignores it) a new secret is made: annotators then need new links.
    """
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
