"""Text models behind one contract: a local transformers model, or an endpoint that speaks the OpenAI chat protocol."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.config import LanguageModelParameters
from vr_pipeline.storage.atomic import names_and_hashes
from vr_pipeline.storage.models import check_model_files, load_complete

T = TypeVar("T")
_FIRST_WAIT_SECONDS = 0.5
_RETRIED_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Failure:
    """Stands for an answer that could not be had or used."""

    reason: str


class UnusableAnswer(ValueError):
    """An answer does not have the form that was asked for."""


class TextModel(Protocol):
    """A loaded model or a connection to one."""

    def ask(self, instructions: str, texts: Sequence[str], parse: Callable[[int, str], T]) -> list[T | Failure]:
        """Answer each text under the same instructions.

        Args:
            instructions: the system message.
            texts: the user messages.
            parse: called as ``parse(position, answer)``; raises :class:`UnusableAnswer`.
        """
        ...


def text_model_identity(parameters: LanguageModelParameters) -> str:
    """Return hash of the model and the settings that change its answers.

    An endpoint's address is not part of it: the same model may move. A local folder counts by its content.
    """
    parts: list[str | int] = [parameters.backend, parameters.model, parameters.max_new_tokens]
    folder = Path(parameters.model)
    if parameters.backend == "transformers" and folder.is_dir():
        parts += names_and_hashes(sorted(path for path in folder.iterdir() if path.is_file()), folder)
    return content_hash("text model", *parts)


def load_text_model(parameters: LanguageModelParameters) -> TextModel:
    """Load the local model, or prepare the connection."""
    return TransformersModel(parameters) if parameters.backend == "transformers" else EndpointModel(parameters)


class TransformersModel:
    """A causal language model of the transformers library, decoded greedily so that answers repeat."""

    def __init__(self, parameters: LanguageModelParameters) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if (folder := Path(parameters.model)).is_dir():
            check_model_files(folder, field="language_model.model")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(parameters.model, padding_side="left")
            model = load_complete(AutoModelForCausalLM, parameters.model, field="language_model.model")
            self._model = model.to(parameters.device).eval()
        except (OSError, ValueError) as error:
            raise InputError(
                f"the text model '{parameters.model}' cannot be loaded: {error}",
                remedy="name a causal language model of the hub or a folder that holds one",
                field="language_model.model",
            ) from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._max_new_tokens = parameters.max_new_tokens

    def ask(self, instructions: str, texts: Sequence[str], parse: Callable[[int, str], T]) -> list[T | Failure]:
        """Return one forward pass for all texts. A greedy answer would not change, so nothing is asked twice."""
        import torch

        batch = self._batch(instructions, texts).to(self._model.device)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answers = self._tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [_parsed(position, answer, parse) for position, answer in enumerate(answers)]

    def _batch(self, instructions: str, texts: Sequence[str]) -> Any:
        """Return tokens of the conversations; control tokens in a text are text, and end no turn."""
        if self._tokenizer.chat_template is None:
            plain = [f"{instructions}\n{text}\n" for text in texts]
            return self._tokenizer(plain, return_tensors="pt", padding=True, split_special_tokens=True)
        return self._tokenizer.apply_chat_template(
            [_messages(instructions, text) for text in texts],
            add_generation_prompt=True,
            sanitize_control_tokens=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )


class EndpointModel:
    """A server with ``POST <base_url>/chat/completions``, such as vLLM, llama.cpp, SGLang or a hosted one."""

    def __init__(self, parameters: LanguageModelParameters) -> None:
        if not parameters.base_url.startswith(("http://", "https://")):
            raise InputError(
                f"'{parameters.base_url}' is no web address",
                remedy="write it as http://host:port/v1",
                field="language_model.base_url",
            )
        self._parameters = parameters
        self._address = parameters.base_url.rstrip("/") + "/chat/completions"
        self._key = os.environ.get(parameters.api_key_variable, "")

    def ask(self, instructions: str, texts: Sequence[str], parse: Callable[[int, str], T]) -> list[T | Failure]:
        """Several requests at a time; each is repeated after a passing failure or an unusable answer."""
        with ThreadPoolExecutor(self._parameters.workers) as pool:
            return list(
                pool.map(
                    lambda position, text: self._ask_one(instructions, position, text, parse), range(len(texts)), texts
                )
            )

    def _ask_one(self, instructions: str, position: int, text: str, parse: Callable[[int, str], T]) -> T | Failure:
        failure = Failure("not asked")
        wait = _FIRST_WAIT_SECONDS
        for attempt in range(self._parameters.retries + 1):
            if attempt:
                time.sleep(wait)
                wait *= 2
            try:
                result = _parsed(position, self._request(instructions, text), parse)
            except urllib.error.HTTPError as error:
                failure = Failure(f"the endpoint answered {error.code} {error.reason}")
                if error.code not in _RETRIED_STATUS:
                    break
            except (OSError, http.client.HTTPException) as error:
                failure = Failure(f"the endpoint cannot be reached: {error}")
            except (KeyError, IndexError, TypeError, ValueError) as error:
                failure = Failure(f"the endpoint's answer is not of the chat protocol: {error!r}")
            else:
                if not isinstance(result, Failure):
                    return result
                failure = result
        return failure

    def _request(self, instructions: str, text: str) -> str:
        body = {
            "model": self._parameters.model,
            "messages": _messages(instructions, text),
            "temperature": 0,
            "max_tokens": self._parameters.max_new_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._address, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self._parameters.timeout) as response:
            content = json.load(response)["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise TypeError("the message has no text")
        return content


def _messages(instructions: str, text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": instructions}, {"role": "user", "content": text}]


def _parsed(position: int, answer: str, parse: Callable[[int, str], T]) -> T | Failure:
    try:
        return parse(position, answer)
    except UnusableAnswer as error:
        return Failure(f"unusable answer: {error}")
