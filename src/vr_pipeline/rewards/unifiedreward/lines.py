"""Answers of several lines: each line is read after the earlier ones with their most likely values.

A pass over the question costs far more than a few lines. Several lines are therefore read in one pass, each for all
combinations of earlier values, if there are few.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.unifiedreward.points import LineScore, line_score
from vr_pipeline.rewards.unifiedreward.scales import ScoreLine
from vr_pipeline.vlm.likelihood import SharedReader
from vr_pipeline.vlm.media import Piece, Request

READ_AHEAD = 16
"""Largest number of combinations of earlier values for which a line is read in the same pass."""

Question = tuple["Piece", ...]
ReadLines = dict[str, LineScore] | InputError
"""Scores of the lines by dimension, in order; or the error."""


@dataclass(frozen=True)
class Lines:
    """Lines of an answer.

    Attributes:
        lines: the lines to read, in order.
        request: makes the request of a line; called with a question, ``line`` and ``earlier``, the earlier numbers.
        separate: whether each line is the answer to its own question.
    """

    lines: Sequence[ScoreLine]
    request: Callable[..., Request]
    separate: bool = False

    def passes(self) -> list[list[int]]:
        """Return which lines are read together."""
        if self.separate:
            return [list(range(len(self.lines)))]
        found: list[list[int]] = []
        ways = READ_AHEAD + 1
        for at, line in enumerate(self.lines):
            if ways > READ_AHEAD:
                found.append([])
                ways = 1
            found[-1].append(at)
            ways *= len(line.values)
        return found

    def fillings(self, before: Sequence[int]) -> Iterator[tuple[str, ...]]:
        """Yield all combinations of values of earlier lines."""
        return iter([()]) if self.separate else product(*(self.lines[line].texts for line in before))


def read_lines(
    reader: SharedReader, asked: Lines, questions: Sequence[Sequence[Question] | InputError]
) -> list[ReadLines]:
    """Return the lines of each answer in order, or its error.

    Args:
        reader: the model.
        asked: the lines to read.
        questions: one question per answer, or one per line if lines are separate; or an error.
    """
    read: list[ReadLines] = [one if isinstance(one, InputError) else {} for one in questions]
    for together in asked.passes():
        _read_pass(reader, asked, together, questions, read)
    return read


def _read_pass(
    reader: SharedReader,
    asked: Lines,
    together: Sequence[int],
    questions: Sequence[Sequence[Question] | InputError],
    read: list[ReadLines],
) -> None:
    places: dict[tuple[int, int, tuple[str, ...]], int] = {}
    requests: list[Request] = []
    for at, (own, before) in enumerate(zip(questions, read, strict=True)):
        if isinstance(own, InputError) or isinstance(before, InputError):
            continue
        earlier = [score.likeliest for score in before.values()]
        for number, line in enumerate(together):
            question = own[line] if asked.separate else own[0]
            for filling in asked.fillings(together[:number]):
                places[at, line, filling] = len(requests)
                requests.append(asked.request(question, line=line, earlier=[*earlier, *filling]))
    found = reader.read(requests)
    for at, before in enumerate(read):
        if isinstance(before, InputError):
            continue
        filled: tuple[str, ...] = ()
        try:
            for line in together:
                score = line_score(found[places[at, line, filled]], asked.lines[line])
                before[asked.lines[line].dimension] = score
                filled = () if asked.separate else (*filled, score.likeliest)
        except InputError as error:
            read[at] = error
