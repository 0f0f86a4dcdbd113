"""The valid grades of a study by annotator and clip, updated with each answer, so that large studies stay fast."""

from collections import defaultdict
from collections.abc import Iterable

from vr_pipeline.annotation.grade_figures import Ranks, dispute
from vr_pipeline.annotation.guide import GradingGuide
from vr_pipeline.preferences.journal import Grade


class GradeBook:
    """The valid grades.

    Attributes:
        own: grades by annotator, in order.
        given: answered sub-dimensions by annotator and item.
        people: annotators of each clip of the study in order, with numbers of answers.
        open: sub-dimensions that need another annotator, by clip.
    """

    def __init__(self, labels: Iterable[Grade], ranks: Ranks, guide: GradingGuide) -> None:
        self.own: dict[str, list[Grade]] = defaultdict(list)
        self.given: dict[str, dict[tuple[str, int, str], set[str]]] = defaultdict(lambda: defaultdict(set))
        self.people: dict[str, dict[str, int]] = defaultdict(dict)
        self.open: dict[str, set[str]] = defaultdict(set)
        self._grades: dict[tuple[str, str], list[Grade]] = defaultdict(list)
        self._ranks, self._guide = ranks, guide
        for label in labels:
            self.add(label)

    def add(self, label: Grade) -> None:
        """Add a written grade."""
        self.own[label.annotator].append(label)
        self.given[label.annotator][label.item].add(label.criterion)
        if label.part == "clip":
            people = self.people[label.video_id]
            people[label.annotator] = people.get(label.annotator, 0) + 1
            self._grades[label.video_id, label.criterion].append(label)
            self._judge(label)

    def remove(self, label: Grade) -> None:
        """Remove an undone grade."""
        self.own[label.annotator].remove(label)
        answered = self.given[label.annotator][label.item]
        answered.remove(label.criterion)
        if not answered:
            del self.given[label.annotator][label.item]
        if label.part == "clip":
            people = self.people[label.video_id]
            people[label.annotator] -= 1
            if not people[label.annotator]:
                del people[label.annotator]
            self._grades[label.video_id, label.criterion].remove(label)
            self._judge(label)

    def _judge(self, label: Grade) -> None:
        state = dispute(self._grades[label.video_id, label.criterion], self._ranks, self._guide)
        if state == "open":
            self.open[label.video_id].add(label.criterion)
        else:
            self.open[label.video_id].discard(label.criterion)
