"""Preferences by segment: cells, several annotators, clips that are cut, and latent frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.datasets.preferences import PreferenceDataset
from vr_pipeline.preferences.formats import examine_preferences, read_preferences
from vr_pipeline.preferences.segments import (
    Segment,
    combined,
    of_shown_frames,
    read_segments,
    segments_by_pair,
    segments_of_frames,
    segments_text,
)
from vr_pipeline.schemas import HumanPreferences

lengths = st.fractions(min_value=Fraction(1, 8), max_value=20, max_denominator=8)
segments = st.lists(st.builds(Segment, st.sampled_from([1, 0, -1]), lengths), max_size=6).map(tuple)


@given(segments)
def test_what_is_written_is_read_back(parts: tuple[Segment, ...]) -> None:
    assert read_segments(segments_text(parts)) == parts


def test_a_cell_labels_equal_parts_or_parts_of_stated_lengths() -> None:
    assert read_segments(" A, b ,tie") == (Segment(1), Segment(-1), Segment(0))
    assert read_segments("a:1.5,b:3") == (Segment(1, Fraction(3, 2)), Segment(-1, Fraction(3)))
    assert read_segments(" ") == ()
    for wrong, reason in (("a,,b", "label ''"), ("a,c", "label 'c'"), ("a:0", "length '0'"), ("a:x", "length 'x'")):
        with pytest.raises(ValueError, match=reason):
            read_segments(wrong)


@pytest.mark.parametrize(
    ("format", "header", "row"),
    [
        ("winner_loser", "prompt,winner,loser,segments", "a cat,{0},{1}"),
        ("plain", "prompt,video_path_a,video_path_b,preference,segments", "a cat,{0},{1},b"),
        ("unified_reward", "caption,chosen,rejected,segments", "a cat,{0},{1}"),
    ],
)
def test_tables_have_segments_and_bad_ones_are_named_by_row_and_field(
    tmp_path: Path, format: str, header: str, row: str
) -> None:
    path = tmp_path / "pairs.csv"
    cells = ['"a,b,tie"', "", '"a,better"']
    rows = [f"{row.format(f'{n}.mp4', f'{n}x.mp4')},{cell}" for n, cell in enumerate(cells)]
    path.write_text("\n".join([header, *rows[:2]]))
    table = read_preferences(path, format)
    HumanPreferences.validate(table)
    assert table["segments"].tolist() == ["a,b,tie", ""]
    copy = PreferenceDataset(filepath=str(tmp_path / "copy.csv"))
    copy.save(table)
    assert copy.load()["segments"].tolist() == ["a,b,tie", ""]
    path.write_text("\n".join([header, *rows]))
    [problem] = examine_preferences(path, format)[1]
    assert (problem.row, problem.field) == (4, "segments")
    assert "unknown label 'better'" in problem.problem


def test_a_list_of_labels_is_a_cell_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a cat", "winner": "1.mp4", "loser": "2.mp4", "segments": ["a", "tie"]}\n')
    assert read_preferences(path, "winner_loser")["segments"].tolist() == ["a,tie"]


@given(st.lists(segments, max_size=4))
def test_of_several_annotators_the_majority_counts_in_every_part(votes: list[tuple[Segment, ...]]) -> None:
    known = [parts for parts in votes if parts]
    result = combined(votes)
    if not known:
        assert result == ()
        return

    def at(parts: tuple[Segment, ...], share: Fraction) -> int:
        place, total = share * sum(part.length for part in parts), Fraction(0)
        for part in parts:
            total += part.length
            if place < total:
                return part.label
        raise AssertionError

    for step in range(23):
        share = Fraction(2 * step + 1, 46)
        labels = sorted((at(parts, share) for parts in known), key=lambda label: label)
        counts = {label: labels.count(label) for label in (1, 0, -1)}
        leading = [label for label, count in counts.items() if count == max(counts.values())]
        assert at(result, share) == (leading[0] if len(leading) == 1 else 0)


def test_labels_follow_the_winner_whichever_way_a_pair_was_shown() -> None:
    preferences = pd.DataFrame(
        {
            "pair_id": ["p", "p", "q"],
            "video_id_a": ["1", "2", "3"],
            "video_id_b": ["2", "1", "4"],
            "segments": ["a,b", "b,tie", None],
        }
    )
    found = segments_by_pair(preferences, pd.Series({"p": "2", "q": "3"}))
    # Seen from clip 2: b,a of the first annotator and b,tie of the second.
    assert found.to_dict() == {"p": "b:1/2,tie:1/2", "q": ""}


def test_what_is_cut_off_takes_its_labels_with_it() -> None:
    parts = read_segments("a,b,a,tie")
    whole = (range(8), 8)
    assert segments_text(of_shown_frames(parts, (whole, whole))) == "a:2,b:2,a:2,tie:2"
    # The first half of both clips; neighbours of the same label stay two segments.
    half = (range(4), 8)
    assert segments_text(of_shown_frames(read_segments("a,a,b,b"), (half, half))) == "a:2,a:2"
    # The last frame is repeated, and belongs to the last segment each time.
    assert segments_text(of_shown_frames(read_segments("a,b"), ([(0, 1, 1, 1), 2],) * 2)) == "a,b:3"
    # The second clip is longer, so that a frame is in another part of it.
    assert segments_text(of_shown_frames(read_segments("a,b"), ((range(4), 4), (range(4), 6)))) == "a:2,tie,b"
    assert of_shown_frames((), (whole, whole)) == ()


def test_latent_frames_have_the_segment_of_their_middle() -> None:
    assert segments_of_frames(read_segments("a,b,tie,a"), 4, 8) == [1, -2, 0, 4]
    # 9 frames, the first one alone, then groups of four: middles at frames 0.5, 3 and 7 of 9.
    assert segments_of_frames(read_segments("a,b,a"), 3, 9, lone=1) == [1, -2, 3]
    assert segments_of_frames(read_segments("a:5,b:4"), 3, 9, lone=1) == [1, 1, -2]
    assert segments_of_frames(read_segments("a:2,b:7"), 3, 9, lone=1) == [1, -2, -2]
    assert segments_of_frames(read_segments("b,a"), 1, 1, lone=1) == [2]
    assert segments_of_frames((), 3, 9, lone=1) == [0, 0, 0]
