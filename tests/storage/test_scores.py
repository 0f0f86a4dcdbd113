"""Tables of scores that somebody supplies."""

from __future__ import annotations

from pathlib import Path

import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.storage.scores import read_scores


def test_scores_by_one_or_several_names(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("dimension,score,video_id\nx,0.5, 007 \ny,-2e3,007\n", encoding="utf-8")
    scores = read_scores(tmp_path / "scores.csv", ("video_id", "dimension"))
    assert scores == {("007", "x"): 0.5, ("007", "y"): -2000.0}
    assert read_scores(tmp_path / "scores.csv", ("dimension",)) == {("x",): 0.5, ("y",): -2000.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id,points\na,1\n", "field 'score': a column is missing"),
        ("video_id,score\na,0.5\nb,1.5\n", "row 3, field 'score': 'b' has the score '1.5'"),
        ("video_id,score\na,0.5\na,0.5\n", "row 3"),
        ("video_id,score\na,high\n", "row 2"),
    ],
)
def test_tables_that_do_not_fit_are_rejected(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_scores(tmp_path / "scores.csv", low=0.0, high=1.0)
    with pytest.raises(InputError, match="there is no table"):
        read_scores(tmp_path / "none.csv")
