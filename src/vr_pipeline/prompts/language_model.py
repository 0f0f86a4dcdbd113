"""Language models: a local transformers model, or an endpoint with the OpenAI chat protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.config import LanguageModelParameters
from vr_pipeline.runtime.devices import resolve_device
from vr_pipeline.runtime.endpoint import Endpoint
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.storage.atomic import names_and_hashes
from vr_pipeline.storage.models import check_model_files, load_complete

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A missing or unusable answer."""

    reason: str


class UnusableAnswer(ValueError):
    """An answer does not have the requested form."""


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

    def close(self) -> None:
        """Free the resources of the model, which is not used again."""


def text_model_identity(parameters: LanguageModelParameters) -> str:
    """Return the hash of the model and the settings that change its answers.

    An endpoint's address is not included, because a model can move. A local folder is hashed by content.
    """
    parts: list[str | int] = [parameters.backend, parameters.model, parameters.max_new_tokens]
    folder = Path(parameters.model)
    if parameters.backend == "transformers":
        if folder.is_dir():
            parts += names_and_hashes(sorted(path for path in folder.iterdir() if path.is_file()), folder)
        elif parameters.revision is not None:
            parts.append(parameters.revision)
        if parameters.dtype != "float32":  # keeps answers from before this setting valid
            parts.append(parameters.dtype)
    return content_hash("text model", *parts)


def load_text_model(parameters: LanguageModelParameters) -> TextModel:
    """Load the local model, or prepare the connection."""
    return TransformersModel(parameters) if parameters.backend == "transformers" else EndpointModel(parameters)


class TransformersModel:
    """A causal language model of transformers, decoded greedily so that answers are reproducible."""

    def __init__(self, parameters: LanguageModelParameters) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        pinned: dict[str, Any] = {}
        if (folder := Path(parameters.model)).is_dir():
            check_model_files(folder, field="language_model.model")
        elif parameters.revision is not None:
            pinned = {"revision": parameters.revision}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(parameters.model, padding_side="left", **pinned)
            settings = {**pinned, "dtype": parameters.dtype}
            model = load_complete(AutoModelForCausalLM, parameters.model, field="language_model.model", **settings)
            self._model = model.to(resolve_device(parameters.device)).eval()
        except (OSError, ValueError) as error:
            raise InputError(
                f"the language model '{parameters.model}' cannot be loaded: {error}",
                remedy="give a causal language model of the hub, or a folder with one",
                field="language_model.model",
            ) from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._max_new_tokens = parameters.max_new_tokens

    def ask(self, instructions: str, texts: Sequence[str], parse: Callable[[int, str], T]) -> list[T | Failure]:
        """Answer all texts in one batch. There are no retries, because greedy answers do not change."""
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

    def close(self) -> None:
        """Free the memory of the model for others on the device."""
        del self._model
        free_memory()

    def _batch(self, instructions: str, texts: Sequence[str]) -> Any:
        """Return tokens of the conversations; control tokens in a text become plain text."""
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
    """A server with ``POST <url>/chat/completions``, such as vLLM, llama.cpp, SGLang or a hosted service."""

    def __init__(self, parameters: LanguageModelParameters) -> None:
        self._parameters = parameters
        self._endpoint = Endpoint(parameters.server, field="language_model.server")

    def ask(self, instructions: str, texts: Sequence[str], parse: Callable[[int, str], T]) -> list[T | Failure]:
        """Send several requests at a time; retry after temporary failures and unusable answers."""
        with ThreadPoolExecutor(self._parameters.server.concurrency) as pool:
            return list(
                pool.map(
                    lambda position, text: self._ask_one(instructions, position, text, parse), range(len(texts)), texts
                )
            )

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _ask_one(self, instructions: str, position: int, text: str, parse: Callable[[int, str], T]) -> T | Failure:
        failure = Failure("not asked")
        for _ in range(self._parameters.server.retries + 1):
            try:
                result = _parsed(position, self._request(instructions, text), parse)
            except PipelineError as error:  # after further attempts, if they could help
                return Failure(str(error))
            except (KeyError, IndexError, TypeError) as error:
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
        answer = self._endpoint.post("chat/completions", body, threading.Event())
        content = answer["choices"][0]["message"]["content"]
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
