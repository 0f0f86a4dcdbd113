"""Requests to a reward server: JSON, validated before any clip is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vr_pipeline.errors import InputError
from vr_pipeline.runtime.setting_names import setting_trouble
from vr_pipeline.runtime.web import Rejection


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, val_json_bytes="base64", hide_input_in_errors=True)


class Clip(_Body):
    """A clip or picture: its file in base64, or its name below the server's folder."""

    clip: bytes | None = Field(None, min_length=1, description="The file's content in base64.")
    path: str | None = Field(None, min_length=1, max_length=1000, description="Its name below the server's folder.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.clip is None) == (self.path is None):
            raise ValueError("give either 'clip', a file in base64, or 'path', a name in the server's folder")
        return self


class ScoreRequest(Clip):
    """Body of ``POST /score``."""

    prompt: str = Field(max_length=20_000, description="The text from which the clip was generated.")
    top: int = Field(5, ge=0, le=1000, description="Questions in 'moved'.")


class CompareRequest(_Body):
    """Body of ``POST /compare``."""

    first: Clip
    second: Clip
    prompt: str = Field(max_length=20_000, description="The text from which both were generated.")


Request = TypeVar("Request", bound=_Body)


def parsed(body: bytes, kind: type[Request]) -> Request | Rejection:
    """Parse a body as a request, or return why it is invalid; the reason never repeats the body."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_input=False, include_context=False, include_url=False)[0]["type"] == "json_invalid":
            return Rejection(400, "The body is not valid JSON.")
        field, problem = setting_trouble(error, kind)
        return Rejection(422, f"{field}: {problem}" if field else problem)


def file_in(folder: Path | None, name: str) -> Path:
    """Return the file with a name below a folder.

    Links are followed first: what lies outside, by any way, is treated as missing.

    Raises:
        InputError: the server has no folder, or the folder has no such file.
    """
    if folder is None:
        raise InputError(
            "this server reads no files", remedy="start it with --clips FOLDER, or send 'clip'", field="path"
        )
    missing = InputError("the folder of clips has no such file", remedy="give a name in it", field="path")
    try:
        found, root = (folder / name).resolve(), folder.resolve()
        if found.is_relative_to(root) and found.is_file() and not Path(name).is_absolute():
            return found
    except (OSError, ValueError, RuntimeError):  # a NUL, a loop of links, a name too long
        raise missing from None
    raise missing
