"""What a judge is asked in every pass of its training, and what each answer weighs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from typing import NamedTuple

import numpy as np

from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.examples import JudgeExample, balance_weights, count_answers
from vr_pipeline.runtime.progress import progress_bar


class Pass(NamedTuple):
    """Clips that go through the model at once.

    Attributes:
        examples: their numbers.
        seed: of what the model draws, such as dropout.
        questions: asked about each of them.
    """

    examples: list[int]
    seed: int
    questions: list[list[str]]


class Drawing:
    """The passes of a training; they depend on their number alone, so that a resumed training draws the same.

    Attributes:
        answer_weights: (question, answer) -> weight of its loss; empty where drawing alone balances.
        weight_per_pass: mean sum of the weights of a pass, by which losses are divided; None where drawing balances.
            The sum of the pass itself would take from rare answers what their weights give them, most where a pass has
            few clips.
    """

    def __init__(
        self, examples: Sequence[JudgeExample], question_ids: Sequence[str], parameters: JudgeTrainingParameters
    ) -> None:
        self.examples, self.question_ids, self.parameters = examples, question_ids, parameters
        self.balance = balance_weights(count_answers(examples))
        self.answer_weights: dict[tuple[str, bool], float] = {}
        self.weight_per_pass: float | None = None
        self._batches = self._all_batches()
        self._next = 0

    def weigh(self, *, show: bool) -> None:
        """Draw the questions of the whole training beforehand, and weigh answers so that yes and no weigh the same.

        Weights are then exact over all that is asked. If drawing alone balances, nothing is done.
        """
        parameters = self.parameters
        if parameters.questions_per_clip is not None and not parameters.exact_balance:
            return
        asked: Counter[tuple[str, bool]] = Counter()
        passes = parameters.steps * parameters.passes
        numbers = progress_bar(range(passes), description="draw questions", disable=not show, leave=False)
        for number, batch in zip(numbers, self._all_batches(), strict=False):
            for at, questions in zip(batch, self._draw(batch, number).questions, strict=True):
                labels = self.examples[at].labels
                asked.update((question, bool(labels[question])) for question in questions)
        self.answer_weights, self.weight_per_pass = balance_weights(asked), asked.total() / passes

    def of_pass(self, number: int) -> Pass:
        """Draw a pass, counted from 0 over the whole training; numbers have to rise."""
        while self._next < number:
            next(self._batches)
            self._next += 1
        self._next += 1
        return self._draw(next(self._batches), number)

    def _all_batches(self) -> Iterator[list[int]]:
        """Numbers of examples, each once an epoch, in an order that the seed determines.

        As many as a pass has clips, or as have the answers of a pass where questions are drawn.
        """
        order = np.random.default_rng(self.parameters.seed)
        drawn, answers = self.parameters.questions_per_clip, self.parameters.answers_per_pass
        clips = chain.from_iterable(order.permutation(len(self.examples)).tolist() for _ in count())
        while True:
            if drawn is None or answers is None:
                yield list(islice(clips, self.parameters.samples_per_pass))
                continue
            batch, missing = [], answers
            while missing > 0:
                batch.append(next(clips))
                missing -= min(drawn, len(self.examples[batch[-1]].labels))
            yield batch

    def _draw(self, batch: list[int], number: int) -> Pass:
        random = np.random.default_rng([self.parameters.seed, number])
        seed = int(random.integers(2**31))
        questions: list[list[str]] = []
        missing = self.parameters.answers_per_pass
        for at in batch:
            questions.append(self._questions(self.examples[at], random, missing))
            missing = None if missing is None else missing - len(questions[-1])
        return Pass(batch, seed, questions)

    def _questions(self, example: JudgeExample, random: np.random.Generator, most: int | None = None) -> list[str]:
        """Draw the questions about a clip, at most so many."""
        asked = [question for question in self.question_ids if question in example.labels]
        if self.parameters.questions_per_clip is None:
            return asked
        number = min(self.parameters.questions_per_clip, most or len(asked))
        if number >= len(asked):
            return asked
        odds = np.array([self.balance[question, bool(example.labels[question])] for question in asked])
        chosen = random.choice(len(asked), size=number, replace=False, p=odds / odds.sum())
        return [asked[at] for at in sorted(chosen)]
