"""Answers of a language model on disk, by content, each written immediately."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.language_model import Failure, TextModel
from vr_pipeline.prompts.language_tasks import Task, user_message
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import replaced


@dataclass(frozen=True)
class AnswerPlan:
    """Texts for a language model, and the task.

    Args:
        texts: repetitions are asked once.
        task: instructions and parser; None for a step that is off.
        load: loads or connects to the model; called only if an answer is missing.
        batch_size: texts per request; answers are written after each batch.
    """

    texts: Sequence[str]
    task: Task | None
    load: Callable[[], TextModel]
    batch_size: int


class Answers:
    """Answers by text."""

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        self._records = {record["text"]: record for record in records}

    def __len__(self) -> int:
        return len(self._records)

    def of(self, text: str) -> dict[str, str] | Failure | None:
        """Return the parsed answer, the failure, or None if the text has neither."""
        record = self._records.get(text)
        if record is None:
            return None
        return Failure(record["failure"]) if "failure" in record else record["answer"]


class AnswerStore:
    """A file of JSON lines: key, text and answer or failure. The next run asks again after failures."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def complete(self, plan: AnswerPlan) -> int:
        """Ask for missing answers; afterwards the file has exactly the plan's texts in order.

        Returns:
            number of texts that were asked.
        """
        texts = list(dict.fromkeys(plan.texts))
        if not texts or plan.task is None:
            self._replace([])
            return 0
        task = plan.task
        keys = {text: content_hash(task.identity, text) for text in texts}
        records = {record["key"]: record for record in self._read()}
        missing = [text for text in texts if "answer" not in records.get(keys[text], {})]
        if missing:
            model = plan.load()
            # A new file to append to, because DVC can have linked the old one.
            self._replace(list(records.values()))
            with (
                self.path.open("a", encoding="utf-8", newline="\n") as file,
                progress_bar(
                    description=f"{task.name} prompts",
                    total=len(texts),
                    initial=len(texts) - len(missing),
                    unit="prompt",
                ) as bar,
            ):
                for start in range(0, len(missing), plan.batch_size):
                    batch = missing[start : start + plan.batch_size]
                    for text, answer in zip(batch, self._ask(model, task, batch), strict=True):
                        record: dict[str, Any] = {"key": keys[text], "text": text}
                        if isinstance(answer, Failure):
                            record["failure"] = answer.reason
                        else:
                            record["answer"] = answer
                        records[keys[text]] = record
                        self._append(file, record)
                    file.flush()
                    bar.update(len(batch))
            model.close()
        self._replace([records[keys[text]] for text in texts])
        return len(missing)

    def load(self) -> Answers:
        """Return all answers in the file."""
        return Answers(self._read())

    @staticmethod
    def _ask(model: TextModel, task: Task, batch: Sequence[str]) -> list[dict[str, str] | Failure]:
        return model.ask(
            task.instructions,
            [user_message(text) for text in batch],
            lambda position, answer: task.parse(batch[position], answer),
        )

    def _read(self) -> list[dict[str, Any]]:
        """Return the complete records, without an unfinished last line of a killed run."""
        if not self.path.is_file():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and {"key", "text"} <= record.keys():
                records.append(record)
        return records

    @staticmethod
    def _append(file: TextIO, record: dict[str, Any]) -> None:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _replace(self, records: Sequence[dict[str, Any]]) -> None:
        with replaced(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                self._append(file, record)
