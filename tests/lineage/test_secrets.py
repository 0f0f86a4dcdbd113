"""What must not leave: by name, by form, in any text, setting or file; and what is no secret stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.lineage.secrets import (
    HIDDEN,
    holds_redaction,
    is_secret_file,
    is_secret_name,
    redacted,
    redaction,
    without_secrets,
)

TOKENS = [
    "AKIA" + "ABCD1234" * 2,
    "ghp_" + "aB3" * 12,
    "github_pat_" + "aB3_" * 8,
    "glpat-" + "aB3" * 8,
    "hf_" + "aB3" * 11,
    "xoxb-" + "123-" * 5 + "abc",
    "sk-ant-" + "aB3" * 10,
    "sk_live_" + "aB3" * 8,
    "dapi" + "0a1b" * 8,
    "AIza" + "aB3_-" * 7,
    "eyJ" + "hbGciOiJI" + ".eyJ" + "zdWIiOiIx" + ".sig-na_ture",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----",
]
WORD = "hunter2horse"


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("frame", ["{}", "x = '{}'", "+  key: {}\n+  b: 1", '{{"a": "{}"}}', "see {} there"])
def test_tokens_are_known_by_their_form(token, frame):
    text, kinds = redaction(frame.format(token))
    assert kinds
    assert HIDDEN in text
    assert not any(part in text for part in token.split("\n") if len(part) > 8)
    assert text.count("\n") == frame.format(token).count("\n"), "lines are counted in a patch"
    assert redaction(text)[1] == [], "what is hidden is not found again"


@pytest.mark.parametrize(
    "text",
    [
        f"--params=api_token={WORD},a.rate=3",
        f"https://someone:{WORD}@example.org/a",
        f"postgresql+psycopg://u:{WORD}@db/x?sslmode=require",
        f"the server said: password: {WORD}",
        f"AWS_SECRET_ACCESS_KEY={WORD}",
        f"{{'client_secret': '{WORD}'}}",
        f"Authorization: Bearer {WORD}{WORD}",
        f"DB_PASSWORD='{WORD}'",
    ],
)
def test_secrets_are_known_by_their_name(text):
    assert WORD not in redacted(text)
    assert WORD not in redaction(text, code=True)[0] or "Authorization" in text


@pytest.mark.parametrize(
    "text",
    [
        "max_new_tokens: 400",
        "token = tokenizer.decode(ids)",
        "password=None, token=token, key=key",
        "eos_token='<|im_end|>'",
        "git@example.org:a/b.git and someone@example.org",
        "a sketch of basic internationalisation by token representation",
        "1c9a0b2f77ab01d2e4f5a6b7c8d9e0f1",
        "sha256:" + "0a" * 32,
    ],
)
def test_what_is_no_secret_stays(text):
    assert redaction(text, code=True) == (text, [])


@given(st.text())
def test_redacting_twice_changes_nothing(text):
    once = redacted(text)
    assert redacted(once) == once


def test_settings_lose_the_values_of_secret_names_only():
    settings = {
        "hub": {"token": WORD, "max_tokens": 5, "api_key_variable": "OPENAI_API_KEY", "password": None},
        "remotes": [{"url": f"https://a:{WORD}@b", "secret_key": WORD}],
        "prompt": "a token of love",
    }
    plain = without_secrets(settings)
    assert WORD not in str(plain)
    assert plain["hub"] == {"token": HIDDEN, "max_tokens": 5, "api_key_variable": "OPENAI_API_KEY", "password": None}
    assert plain["prompt"] == "a token of love"
    assert holds_redaction(plain["remotes"])
    assert not holds_redaction(plain["prompt"])


@pytest.mark.parametrize("name", ["token", "a.b.hf_token", "db-password", "API_KEY", "aws_secret_access_key", "passwd"])
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["tokens", "token_ids", "max_token", "pad_token", "key", "tokenizer", "secretary", "seed"]
)
def test_names_of_others(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "path",
    [
        *(".env", "a/.env.local", "prod.env", ".envrc", "conf/base/credentials.yml", "conf/x/credentials_s3.yml"),
        *(
            "id_rsa",
            "a/id_ed25519.pub",
            "a.pem",
            "B.KEY",
            "c.p12",
            ".netrc",
            ".ssh/config",
            ".aws/config",
            "kubeconfig",
        ),
        *(".dvc/config.local", "secrets/a.yml", "secrets.yaml", "service-account.json", "terraform.tfstate", ".npmrc"),
    ],
)
def test_files_of_secrets(path):
    assert is_secret_file(path)


@pytest.mark.parametrize(
    "path", ["src/secrets.py", "tokenizer.json", "environment.yml", ".env.example", "keys.py", "a.md"]
)
def test_files_of_others(path):
    assert not is_secret_file(path)
