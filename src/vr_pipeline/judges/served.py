"""The judge behind a server that speaks OpenAI's chat protocol: one request per clip and question.

The answer is never read as text: the server returns the most likely first tokens with their log-probabilities, and all
spellings of yes and no among them count. What the other tokens have is unknown and counts as mass outside both.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.errors import InputError
from vr_pipeline.judges.completions import (
    FIELD,
    Answer,
    NoAnswerError,
    image_parts,
    plain_text,
    read_answer,
    video_parts,
)
from vr_pipeline.judges.contract import Probabilities, prompts_and_rates, shown_frames
from vr_pipeline.runtime.endpoint import Endpoint, EndpointUnavailable, RequestRejected
from vr_pipeline.terminal import one_line
from vr_pipeline.video.fit import resized
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.config import JudgeParameters, ServerParameters

logger = logging.getLogger(__name__)

WITHOUT_AN_ANSWER = 32
"""So many requests without one answer of yes or no stop the run: the cause is then not the clips."""
_REMEMBERED = 1 << 16


class ServedJudge:
    """A judge behind a server; see :class:`~.contract.Judge`.

    Args:
        parameters: with their block ``server``.
        identity: of its answers.

    Raises:
        InputError: the key's variable is not set, or the server has no such model.
        EndpointUnavailable: the server does not answer.
    """

    def __init__(self, parameters: JudgeParameters, identity: str) -> None:
        assert parameters.server is not None
        self.parameters, self.server, self.identity = parameters, parameters.server, identity
        self.num_frames, self.frames_per_second = parameters.num_frames, parameters.frames_per_second
        self._endpoint = Endpoint(parameters.server, field=FIELD)
        self._known: OrderedDict[tuple[str, str], Answer | InputError] = OrderedDict()
        self._counts = _Counts()
        self._lock = threading.Lock()
        self._check_model()

    def answer(
        self,
        clips: Sequence[Frames],
        questions: Sequence[str],
        prompts: Sequence[str] | None = None,
        *,
        frames_per_second: Sequence[float] | None = None,
    ) -> tuple[Probabilities, Probabilities]:
        """See :meth:`vr_pipeline.judges.contract.Judge.answer`; what was answered before is not asked again.

        Raises:
            InputError: a question holds ``[[prompt]]`` and no prompts are given; or the server rejects a request.
            NoAnswerError: an answer has no probability of yes or no.
            EndpointUnavailable: the server cannot be used now.
            ValueError: the numbers of clips, prompts and rates differ, or a clip is not uint8 [frames, h, w, 3].
        """
        prompts, rates = prompts_and_rates(clips, questions, prompts, frames_per_second)
        p_yes, outside = np.empty((2, len(clips), len(questions)))
        shown = [
            _Shown(shown_frames(clip, self.num_frames), rate, self._parts)
            for clip, rate in zip(clips, rates, strict=True)
        ]
        texts = [[self._text(question, prompt) for question in questions] for prompt in prompts]
        answers = self._answers(shown, texts)
        for place in np.ndindex(p_yes.shape):
            answer = answers[place]
            # The first failure of a clip is the same in whatever order the answers came: see _answers.
            if isinstance(answer, InputError):
                raise answer
            p_yes[place], outside[place] = answer.p_yes, answer.outside_mass
        return p_yes, outside

    def _answers(
        self, shown: Sequence[_Shown], texts: Sequence[Sequence[str]]
    ) -> dict[tuple[int, ...], Answer | InputError]:
        """Ask several questions at a time, clip by clip, so that a server's cache of the clip helps.

        Where a question fails, later ones about that clip are not asked, earlier ones are.
        """
        answers: dict[tuple[int, ...], Answer | InputError] = {}
        first_failure: dict[int, int] = {}
        stop = threading.Event()

        def note(clip: int, question: int, answer: Answer | InputError) -> None:
            answers[clip, question] = answer
            if isinstance(answer, InputError):
                with self._lock:
                    first_failure[clip] = min(question, first_failure.get(clip, question))

        def ask(clip: int, question: int) -> None:
            if stop.is_set() or question > first_failure.get(clip, question):
                return
            text = texts[clip][question]
            try:
                answer = self._asked(shown[clip], text, stop)
            except EndpointUnavailable:
                stop.set()
                raise
            finally:
                if (clip, question) == last[clip]:
                    shown[clip].forget()
            note(clip, question, answer)
            if len(shown) > 1 or isinstance(answer, Answer):
                with self._lock:
                    self._known[shown[clip].digest, text] = answer
                    if len(self._known) > _REMEMBERED:
                        self._known.popitem(last=False)

        missing = []
        for clip, row in enumerate(texts):
            for question, text in enumerate(row):
                known = self._known.get(key := (shown[clip].digest, text))
                if known is None:
                    missing.append((clip, question))
                    continue
                if isinstance(known, InputError):
                    # It is remembered for the one time that the caller asks about the clips one by one.
                    del self._known[key]
                note(clip, question, known)
        last = {clip: (clip, question) for clip, question in missing}
        with ThreadPoolExecutor(self.server.concurrency, thread_name_prefix="judge") as pool:
            futures: list[Future[None]] = []
            try:
                futures += [pool.submit(ask, *place) for place in missing]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
        self._report()
        return answers

    def _asked(self, shown: _Shown, text: str, stop: threading.Event) -> Answer | InputError:
        answer: Answer | InputError
        document: Mapping[str, Any] = {}
        parts = shown.parts()
        try:
            document = self._endpoint.post("chat/completions", self._body(parts, text), stop)
            self._check_answering_model(document)
            answer = read_answer(document, text)
        except (NoAnswerError, RequestRejected) as error:
            answer = error
        with self._lock:
            self._counts.add(parts, document, answer)
            if self._counts.never_answered:
                raise EndpointUnavailable(
                    f"None of the first {WITHOUT_AN_ANSWER} requests to {self.server.url} has an answer of yes or no; "
                    f"the last reason: {answer}"
                )
        return answer

    def _body(self, parts: Sequence[Mapping[str, Any]], text: str) -> dict[str, Any]:
        system = [{"role": "system", "content": self.server.system}] if self.server.system else []
        content = [*parts, {"type": "text", "text": text}]
        return {
            "model": self.parameters.path,
            "messages": [*system, {"role": "user", "content": content}],
            self.server.max_tokens_field: 1,
            # The most likely token comes first; servers return the same probabilities as for sampling.
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.server.top_logprobs,
            **self.server.extra_body,
        }

    def _text(self, question: str, prompt: str) -> str:
        asked = plain_text(question.replace(PROMPT_PLACEHOLDER, prompt))
        return f"{self.server.before_question}{asked}{self.server.after_question}"

    def _parts(self, frames: Frames, rate: float | None) -> list[dict[str, Any]]:
        video = self.server.media == "video" and len(frames) > 1
        frames = self._sized(frames, even=video and self.server.video_codec == "libx264")
        return video_parts(frames, rate, self.server) if video else image_parts(frames, self.server)

    def _sized(self, frames: Frames, *, even: bool) -> Frames:
        """Return frames with an area within the limits, the aspect kept up to a pixel."""
        height, width = frames.shape[1:3]
        area = height * width
        least, most = self.parameters.min_pixels or 1, self.parameters.max_pixels or area
        scale = math.sqrt(most / area if area > most else max(1.0, least / area))
        if scale == 1 and not (even and (height % 2 or width % 2)):
            return frames
        whole = math.ceil if scale > 1 else math.floor
        return resized(frames, (max(2, 2 * whole(height * scale / 2)), max(2, 2 * whole(width * scale / 2))))

    def _check_model(self) -> None:
        """See that the server has the model; not every server lists what it has."""
        try:
            listed = self._endpoint.get("models")
        except RequestRejected:
            return
        entries = (listed or {}).get("data")
        found = entries if isinstance(entries, list) else []
        names = [str(entry.get("id")) for entry in found if isinstance(entry, Mapping)]
        if names and self.parameters.path not in names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise InputError(
                f"the server at {self.server.url} has no model '{self.parameters.path}', but "
                f"{', '.join(one_line(name) for name in names[:5])}{more}",
                remedy="Name one of them, or start the server with this model",
                field="judge.path",
            )

    def _check_answering_model(self, document: Mapping[str, Any]) -> None:
        """See that the model that was asked has answered: a name such as 'latest' means another one later."""
        expected, found = self.server.answers_as or self.parameters.path, document.get("model")
        if found is not None and found != expected:
            raise EndpointUnavailable(
                f"The server at {self.server.url} was asked for the model '{expected}', and "
                f"'{one_line(str(found)[:200])}' has answered. Name that one as 'judge.path', so that stored answers "
                f"keep their meaning; if the server only writes the name in another way, set '{FIELD}.answers_as'."
            )

    def _report(self) -> None:
        """Log what was asked so far, after twice as many requests each time."""
        if self._counts.requests >= self._counts.report_at:
            self._counts.report_at = 2 * self._counts.requests
            logger.info("%s: %s", self.server.url, self._counts.summary(self.server, self._endpoint.retried))


class _Shown:
    """A clip that becomes parts of a message when it is first asked about, and is only frames again afterwards."""

    def __init__(
        self, frames: Frames, rate: float | None, make: Callable[[Frames, float | None], list[dict[str, Any]]]
    ) -> None:
        self._frames, self._rate, self._make = frames, rate, make
        self._made: list[dict[str, Any]] | None = None
        self._lock = threading.Lock()
        content = hashlib.sha256(np.ascontiguousarray(frames).data)
        content.update(repr((frames.shape, rate)).encode())
        self.digest = content.hexdigest()

    def parts(self) -> list[dict[str, Any]]:
        with self._lock:
            if self._made is None:
                self._made = self._make(self._frames, self._rate)
            return self._made

    def forget(self) -> None:
        with self._lock:
            self._made = None


class _Counts:
    def __init__(self) -> None:
        self.requests = self.answered = self.size = self.input_tokens = self.output_tokens = 0
        self.unknown_mass = 0.0
        self.report_at = 1

    def add(self, parts: Sequence[Mapping[str, Any]], document: Mapping[str, Any], answer: Answer | InputError) -> None:
        self.requests += 1
        self.size += sum(len(part[part["type"]]["url"]) for part in parts)
        usage = document.get("usage")
        if isinstance(usage, Mapping):
            self.input_tokens += _count(usage.get("prompt_tokens"))
            self.output_tokens += _count(usage.get("completion_tokens"))
        if isinstance(answer, Answer):
            self.answered += 1
            self.unknown_mass += answer.unknown_mass

    @property
    def never_answered(self) -> bool:
        return not self.answered and self.requests >= WITHOUT_AN_ANSWER

    def summary(self, server: ServerParameters, retried: int) -> str:
        parts = [
            f"{self.requests:,} requests, {self.requests - self.answered:,} without an answer, {retried:,} attempts "
            f"repeated, {self.size / 1e6:,.1f} MB of images and videos",
            f"{self.input_tokens:,} tokens sent, {self.output_tokens:,} received",
            f"mean probability of tokens that the server does not list {self.unknown_mass / max(1, self.answered):.4f}",
        ]
        if server.price_per_million_input_tokens is not None:
            price = self.input_tokens * server.price_per_million_input_tokens
            price += self.output_tokens * server.price_per_million_output_tokens
            parts.append(f"{price / 1e6:,.4f} {server.currency} at the stated prices")
        return "; ".join(parts)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
