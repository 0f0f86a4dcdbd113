"""Pairs of token sequences with a Rouge-L F1 above a threshold, without comparing all pairs.

The search follows set-similarity joins (Chaudhuri, Ganti, Kaushik 2006; Xiao and others 2008, PPJoin): a pair above the
threshold must share a number of tokens that depends only on both lengths, hence a rare token near the start of both
lists of tokens sorted by rarity. A bound from hashed bit signatures removes more pairs, and rapidfuzz computes the
exact LCS of the rest. No bound removes a pair above the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.prompts.greedy_scan import Integers, Pairs, best_partners, joined

POSTINGS_AT_A_TIME = 500_000
SIGNATURE_WORDS = 4

Run = Callable[..., Iterator[Pairs]]


def _pieces(owner: Integers, sizes: Integers) -> Iterator[slice]:
    """Cut flat prefix elements into pieces of at most POSTINGS_AT_A_TIME postings.

    A prompt's elements stay in one piece, even above the limit, so that no pair is verified twice.
    """
    last = np.flatnonzero(np.append(owner[1:] != owner[:-1], True)) if len(owner) else owner
    work = np.cumsum(sizes)[last]
    start, done = 0, 0
    while start < len(owner):
        position = max(
            int(np.searchsorted(work, done + POSTINGS_AT_A_TIME, side="right")) - 1,
            int(np.searchsorted(last, start)),
        )
        yield slice(start, int(last[position]) + 1)
        start, done = int(last[position]) + 1, int(work[position])


@dataclass(frozen=True)
class _Segment:
    """Inverted index of some prompts: for each token its prompts, and its place in their order by rarity."""

    starts: Integers
    prompts: npt.NDArray[np.int32]
    places: npt.NDArray[np.int32]
    members: Integers


class SegmentedIndex:
    """Index of the kept prompts in segments that are merged as they grow, so that adding stays cheap."""

    def __init__(self) -> None:
        self.segments: list[_Segment] = []

    def add(self, join: Join, members: Integers) -> None:
        if not len(members):
            return
        while self.segments and len(self.segments[-1].members) <= 2 * len(members):
            members = np.concatenate([self.segments.pop().members, members])
        self.segments.append(join.segment(members))


class Join:
    """Distinct token sequences of the prompts, in arrays for candidate search at one threshold."""

    def __init__(
        self, texts: Sequence[Sequence[str]], threshold: float, groups: Sequence[str] | None, run: Run
    ) -> None:
        self.threshold, self.run = threshold, run
        self.representative = np.full(len(texts), -1, dtype=np.int64)
        vocabulary: dict[str, int] = {}
        labels: dict[str, int] = {}
        sequences: dict[tuple[int, tuple[int, ...]], int] = {}
        first: list[int] = []
        for index, text in enumerate(texts):
            tokens = tuple([vocabulary.setdefault(token, len(vocabulary)) for token in text])
            if not tokens:
                continue
            group = labels.setdefault(groups[index], len(labels)) if groups is not None else 0
            number = sequences.setdefault((group, tokens), len(sequences))
            self.representative[index] = number
            if number == len(first):
                first.append(index)
        self.first_appearance = np.array(first, dtype=np.int64)
        count = len(sequences)
        self.nearest = np.full(count, -1, dtype=np.int64)
        self.similarity = np.full(count, np.nan)
        self.lengths = np.fromiter((len(tokens) for _, tokens in sequences), dtype=np.int64, count=count)
        flat = np.fromiter((token for _, tokens in sequences for token in tokens), np.int64, int(self.lengths.sum()))
        self.groups = np.fromiter((group for group, _ in sequences), np.int64, count) if groups is not None else None
        self.sequences = as_strings([tokens for _, tokens in sequences], len(vocabulary))
        self._lay_out(flat)
        self._tabulate_requirements()

    def __len__(self) -> int:
        return len(self.lengths)

    def _lay_out(self, flat: Integers) -> None:
        """Sort each prompt's elements by rarity; each n-th occurrence of a token in a prompt is a separate element."""
        owner = np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)
        order = np.lexsort((flat, owner))
        token, owner = flat[order], owner[order]
        new_run = np.ones(len(token), dtype=bool)
        new_run[1:] = (token[1:] != token[:-1]) | (owner[1:] != owner[:-1])
        run_starts = np.flatnonzero(new_run)
        occurrence = np.arange(len(token)) - run_starts[np.cumsum(new_run) - 1] if len(token) else token
        width = int(occurrence.max(initial=0)) + 1
        _, element, frequency = np.unique(token * width + occurrence, return_inverse=True, return_counts=True)
        rank = np.empty(len(frequency), dtype=np.int64)
        rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
        element = rank[element]
        order = np.lexsort((element, owner))
        self.elements = element[order]
        self.number_of_elements = len(frequency)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        self.signatures = self._signatures(owner)

    def _signatures(self, owner: Integers) -> npt.NDArray[np.uint64]:
        """Return bit sets of the elements; their Hamming distance is at most the size of the symmetric difference."""
        bits = 64 * SIGNATURE_WORDS
        mixed = (self.elements.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bit = (mixed >> np.uint64(40)) % np.uint64(bits)
        signatures = np.zeros((len(self), SIGNATURE_WORDS), dtype=np.uint64)
        for word in range(SIGNATURE_WORDS):
            chosen = (bit // np.uint64(64)) == np.uint64(word)
            np.bitwise_or.at(signatures[:, word], owner[chosen], np.uint64(1) << (bit[chosen] % np.uint64(64)))
        return signatures

    def _tabulate_requirements(self) -> None:
        """Compute the smallest LCS above the threshold for each pair of lengths; out of reach if there is none."""
        self.distinct_lengths, self.length_class = np.unique(self.lengths, return_inverse=True)
        a = self.distinct_lengths[:, None].astype(np.float64)
        b = self.distinct_lengths[None, :].astype(np.float64)
        # The real-number solution, corrected by the floating point formula of the decision.
        needed = np.maximum(np.floor(self.threshold * (a + b) / 2) - 1, 1)
        for _ in range(4):
            precision, recall = needed / a, needed / b
            needed = np.where(2 * precision * recall / (precision + recall) > self.threshold, needed, needed + 1)
        reachable = needed <= np.minimum(a, b)
        self.needed = np.where(reachable, needed, np.iinfo(np.int32).max).astype(np.int32)
        smallest = self.needed.min(axis=1, initial=np.iinfo(np.int32).max)
        # A prompt's prefix: possible places of the first shared element of a pair above the threshold.
        self.prefix = np.clip(self.lengths - smallest[self.length_class] + 1, 0, None)

    def _prefix_elements(self, members: Integers) -> tuple[Integers, Integers, Integers]:
        """Return the elements in the prefixes of ``members`` as flat arrays: element, prompt and place."""
        sizes = self.prefix[members]
        total = int(sizes.sum())
        owner = np.repeat(members, sizes)
        place = np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.elements[self.offsets[owner] + place], owner, place

    def segment(self, members: Integers) -> _Segment:
        """Return the inverted index of the prefixes of ``members``."""
        element, owner, place = self._prefix_elements(members)
        order = np.argsort(element, kind="stable")
        starts = np.searchsorted(element[order], np.arange(self.number_of_elements + 1))
        return _Segment(starts, owner[order].astype(np.int32), place[order].astype(np.int32), members)

    def matches(self, queries: Integers, segments: Sequence[_Segment]) -> Pairs:
        """Return all pairs (query, earlier indexed prompt) with an F1 above the threshold, and the F1."""
        element, owner, place = self._prefix_elements(queries)
        pieces = [
            (segment, piece)
            for segment in segments
            for piece in _pieces(owner, segment.starts[element + 1] - segment.starts[element])
        ]

        def search(job: tuple[_Segment, slice]) -> Pairs:
            segment, piece = job
            begins, ends = segment.starts[element[piece]], segment.starts[element[piece] + 1]
            return self._verify(*self._candidates(owner[piece], place[piece], begins, ends, segment))

        return joined(*self.run(search, pieces))

    def _candidates(
        self, owner: Integers, place: Integers, begins: Integers, ends: Integers, segment: _Segment
    ) -> tuple[Integers, Integers]:
        sizes = ends - begins
        posting = np.arange(int(sizes.sum())) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
        query = np.repeat(owner, sizes)
        other = segment.prompts[posting].astype(np.int64)
        earlier = other < query
        if self.groups is not None:
            earlier &= self.groups[other] != self.groups[query]
        query, other, posting = query[earlier], other[earlier], posting[earlier]
        query_place = np.repeat(place, sizes)[earlier]
        needed = self.needed[self.length_class[query], self.length_class[other]].astype(np.int64)
        possible = (query_place <= self.lengths[query] - needed) & (
            segment.places[posting] <= self.lengths[other] - needed
        )
        pairs = np.unique(query[possible] * len(self) + other[possible])
        query, other = np.divmod(pairs, max(len(self), 1))
        needed = self.needed[self.length_class[query], self.length_class[other]].astype(np.int64)
        apart = np.bitwise_count(self.signatures[query] ^ self.signatures[other]).sum(axis=1, dtype=np.int64)
        possible = self.lengths[query] + self.lengths[other] - apart >= 2 * needed
        return query[possible], other[possible]

    def _verify(self, query: Integers, other: Integers) -> Pairs:
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cpdist

        if not len(query):
            return query, other, np.empty(0)
        lcs = cpdist(
            [self.sequences[index] for index in query.tolist()],
            [self.sequences[index] for index in other.tolist()],
            scorer=LCSseq.similarity,
            dtype=np.int32,
            workers=1,
        ).astype(np.int64)
        above = lcs >= self.needed[self.length_class[query], self.length_class[other]]
        query, other, lcs = query[above], other[above], lcs[above]
        precision, recall = lcs / self.lengths[query], lcs / self.lengths[other]
        return query, other, 2 * precision * recall / (precision + recall)

    def record_best(self, *pairs: Pairs) -> None:
        """Record the most similar partner of each query."""
        query, other, score = best_partners(*pairs)
        self.nearest[query], self.similarity[query] = other, score


def as_strings(sequences: list[tuple[int, ...]], vocabulary_size: int) -> list[str] | list[tuple[int, ...]]:
    """Return token sequences as strings with one character per token, which rapidfuzz compares fastest.

    Unicode has about 1.1 million characters without surrogates; above this number, integers are compared.
    """
    surrogates = 0xD800
    if vocabulary_size + 0x800 > 0x10FFFF:
        return sequences
    return ["".join([chr(token if token < surrogates else token + 0x800) for token in tokens]) for tokens in sequences]
