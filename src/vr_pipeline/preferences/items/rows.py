"""A labelled item, and the table of items."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from vr_pipeline.identifiers import content_hash, prompt_id, same_path, video_id

Task = Literal["image_generation", "video_generation", "image_understanding", "video_understanding"]
Form = Literal["pair", "point"]

ITEM_COLUMNS = (
    *("item_id", "task", "form", "video_id_a", "video_id_b", "prompt", "response_a", "response_b", "answer"),
    *("dimension", "source", "weight", "files_a", "files_b"),
)


@dataclass(frozen=True)
class Item:
    """One label.

    Attributes:
        task: clips (generation), or texts about one clip (understanding).
        form: pair, or single clip or text.
        files_a, files_b: one video or image, or the frames of a clip in order; the second only for two clips.
        prompt: prompt of the clips, or the question.
        answer: first, second or tie; or the number as text.
        dimension: dimension of a number; empty for the overall score.
        response_a, response_b: texts of understanding tasks; the second only for pairs.
    """

    task: Task
    form: Form
    prompt: str
    answer: str
    files_a: tuple[str, ...]
    files_b: tuple[str, ...] = ()
    dimension: str = ""
    response_a: str = ""
    response_b: str = ""


def files_identifier(prompt: str, files: Sequence[str]) -> str:
    """Return the identifier of a clip from its files; for one file as in tables of preferences."""
    if not files:
        return ""
    return video_id(prompt_id(prompt), 0, "\n".join(map(same_path, files)))


def item_table(items: Iterable[Item], source: str) -> pd.DataFrame:
    """Return the table of items in order, without duplicates."""
    rows = []
    for item in items:
        clips = [files_identifier(item.prompt, files) for files in (item.files_a, item.files_b)]
        content = (item.prompt, item.response_a, item.response_b, item.answer, item.dimension)
        rows.append(
            {
                "item_id": content_hash("item", source, item.task, item.form, *clips, *content),
                **{"task": item.task, "form": item.form, "video_id_a": clips[0], "video_id_b": clips[1]},
                **{"prompt": item.prompt, "response_a": item.response_a, "response_b": item.response_b},
                **{"answer": item.answer, "dimension": item.dimension, "source": source, "weight": 1.0},
                **{"files_a": list(item.files_a), "files_b": list(item.files_b)},
            }
        )
    table = pd.DataFrame(rows, columns=list(ITEM_COLUMNS))
    return table.drop_duplicates("item_id", ignore_index=True)
