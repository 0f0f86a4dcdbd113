"""Readers of every format on small files in that format, and the messages for bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vr_pipeline.datasets.preferences import PreferenceClipsDataset, PreferenceDataset
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import pair_id, prompt_id
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.preferences.rows import file_identifier
from vr_pipeline.schemas import HumanPreferences

Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif name.endswith(".jsonl"):
            path.write_text("\n".join(json.dumps(entry) for entry in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return make


def labels_of(table: pd.DataFrame) -> list[str]:
    HumanPreferences.validate(table)
    return list(table["preference"])


def test_plain_by_identifier(write: Write) -> None:
    path = write(
        "p.csv",
        'prompt,video_id_a,video_id_b,preference,annotator\n"a cat, asleep",v1,v2,a,x\na dog,v3,v4,tie,y\n',
    )
    table = read_preferences(path)
    assert labels_of(table) == ["a", "tie"]
    assert table["pair_id"][0] == pair_id(prompt_id("a cat, asleep"), "v1", "v2")
    assert list(table["source"]) == ["plain", "plain"]
    assert list(table["annotator"]) == ["x", "y"]


def test_plain_by_path_with_other_column_names_and_labels(write: Write) -> None:
    path = write("p.tsv", "caption\tvideo_path_a\tvideo_path_b\tpreference\na cat\ta.mp4\tb.mp4\tsecond\n")
    table = read_preferences(path, columns={"prompt": "caption"}, labels={"first": "a", "second": "b"}, source="ours")
    assert labels_of(table) == ["b"]
    assert table["video_id_a"][0] == file_identifier("a cat", "a.mp4")
    assert table["video_path_b"][0] == "b.mp4"
    assert table["source"][0] == "ours"


def test_visionreward_needs_the_meaning_of_its_labels(write: Write) -> None:
    entry = {"internal_id": "7", "prompt": "a cat", "video1_path": "1.mp4", "video2_path": "2.mp4"}
    path = write("test.json", [{**entry, "standard_answer": 1}, {**entry, "standard_answer": 2.0}])
    assert labels_of(read_preferences(path, "visionreward", labels={"1": "a", "2": "b"})) == ["a", "b"]
    with pytest.raises(InputError, match=r"row 1, field 'standard_answer'.*not documented.*labels"):
        read_preferences(path, "visionreward")
    path = write("test.json", [{**entry, "standard_answer": answer} for answer in (1, 2, 2)])
    with pytest.raises(InputError, match="row 2, field 'standard_answer': unknown label '2'"):
        read_preferences(path, "visionreward", labels={"1": "a"})


def test_videogen_rewardbench(write: Write) -> None:
    path = write(
        "bench.csv",
        "path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall,fps_A,num_frames_A,fps_B,num_frames_B\n"
        "1.mp4,2.mp4,m1,m2,a cat,A,B,same,B,8,16,8,16\n",
    )
    assert labels_of(read_preferences(path, "videogen_rewardbench")) == ["b"]
    assert labels_of(read_preferences(path, "videogen_rewardbench", criterion="TA")) == ["tie"]
    table = read_preferences(path, "videogen_rewardbench", criterion="VQ")
    assert (table["preference"][0], table["generator_a"][0], table["generator_b"][0]) == ("a", "m1", "m2")
    with pytest.raises(InputError, match=r"no column 'Everything'.*--criterion"):
        read_preferences(path, "videogen_rewardbench", criterion="Everything")


def test_genai_bench(write: Write) -> None:
    entries = [
        {
            "prompt": "a cat",
            "left_model": "m1",
            "left_video": f"{i}a.mp4",
            "right_model": "m2",
            "right_video": f"{i}b.mp4",
            "vote_type": vote,
        }
        for i, vote in enumerate(["leftvote", "rightvote", "tievote", "bothbad_vote"])
    ]
    table = read_preferences(write("g.jsonl", entries), "genai_bench")
    assert labels_of(table) == ["a", "b", "tie", "tie"]
    odd = {**entries[0], "vote_type": "both"}
    table = read_preferences(write("h.jsonl", [*entries, odd]), "genai_bench")
    assert (len(table), table.attrs["rejected"]) == (4, 1)
    with pytest.raises(InputError, match="row 5, field 'vote_type': unknown label 'both' \\(2 of 6 rows"):
        read_preferences(write("h.jsonl", [*entries, odd, odd]), "genai_bench")


def test_hpdv2_training_and_test_lists(write: Write) -> None:
    train = [{"prompt": "a cat", "file_path": ["1.jpg", "2.jpg"], "human_preference": [0, 1]}]
    assert labels_of(read_preferences(write("train.json", train), "hpdv2")) == ["b"]
    test = [{"prompt": "a cat", "image_path": ["1", "2", "3"], "rank": [2, 1, 2]}]
    assert labels_of(read_preferences(write("test.json", test), "hpdv2")) == ["b", "tie", "a"]
    raw = [{**test[0], "raw_annotations": [[1, 2, 3], [3, 2, 1]]}]
    table = read_preferences(write("raw.json", raw), "hpdv2")
    assert labels_of(table) == ["a", "a", "a", "b", "b", "b"]
    assert list(table["annotator"])[::3] == ["annotator 1", "annotator 2"]
    named = [{**test[0], "raw_annotation": [{"rank": [1, 2, 3], "user_hash": "u"}]}]
    table = read_preferences(write("named.json", named), "hpdv2")
    assert (labels_of(table), set(table["annotator"])) == (["a", "a", "a"], {"u"})
    with pytest.raises(InputError, match="row 1, field 'human_preference'"):
        read_preferences(write("bad.json", [{**train[0], "human_preference": [1]}]), "hpdv2")


def test_pick_a_pic(write: Write) -> None:
    rows = pd.DataFrame(
        {
            "caption": ["a cat"] * 4,
            "jpg_0": [b"1", b"2", b"3", b"4"],
            "jpg_1": [b"5", b"6", b"7", b"8"],
            "label_0": [1.0, 0.0, 0.5, 0.0],
            "label_1": [0.0, 1.0, 0.5, 0.0],
            "has_label": [True, True, True, False],
            "ranking_id": [1, 2, 3, 4],
        }
    )
    table = read_preferences(write("p.parquet", rows), "pick_a_pic")
    assert labels_of(table) == ["a", "b", "tie"]
    assert table.attrs["skipped"] == 1
    assert table["video_path_a"].nunique() == 3
    with pytest.raises(InputError, match=r"row 4, field 'label_0': unknown labels 0\.0 and 0\.0"):
        read_preferences(write("q.parquet", pd.concat([rows, rows[3:]]).assign(has_label=True)), "pick_a_pic")


def test_imagerewarddb(write: Write) -> None:
    path = write(
        "i.csv",
        "image_path,prompt_id,prompt,rank,overall_rating\n"
        "1.webp,p1,a cat,2,3\n2.webp,p1,a cat,1,6\n3.webp,p1,a cat,2,3\n4.webp,p2,a dog,1,3\n",
    )
    assert labels_of(read_preferences(path, "imagerewarddb")) == ["b", "tie", "a"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", "prompt,video_id_a,video_id_b,preference\n", "the file has no preferences"),
        ("head.csv", "prompt,video_id_a,video_id_b\nx,1,2\n", "no column 'preference'"),
        ("empty.csv", "", "the file is empty"),
        (
            "long.csv",
            "prompt,video_id_a,video_id_b,preference\nx,1,2,a\ny,1,2,a,more\nz,1,2\n",
            "row 3: the row has 5 fields, the header 4 \\(2 of 3 rows cannot be used\\)",
        ),
        ("open.csv", 'prompt,video_id_a,video_id_b,preference\n"x,1,2,a\n', "row 2: .*quotation"),
        ("prompt.csv", "prompt,video_id_a,video_id_b,preference\nx,1,2,a\n ,1,2,a\n ,1,2,a\n", "row 3, field 'prompt'"),
        ("self.csv", "prompt,video_id_a,video_id_b,preference\nx,1,1,a\n", "row 2.*compared with itself"),
        ("gap.csv", "prompt,video_id_a,video_id_b,preference\nx,1,,a\n", "row 2, field 'video_id_b'"),
        ("broken.json", "[{", "row 1: the file is not JSON"),
        ("other.xlsx", "x", "files of type '.xlsx' are not read"),
    ],
)
def test_bad_files_are_named(write: Write, name: str, content: str, message: str) -> None:
    path = write(name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_preferences(path)
    assert name in str(caught.value)


def test_bytes_that_are_no_text_are_named_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    header = b"prompt, video_id_a,video_id_b,preference\n"
    (tmp_path / "mark.csv").write_bytes(b"\xef\xbb\xbf" + header + b"x,1,2,a\n\n")
    assert labels_of(read_preferences(tmp_path / "mark.csv")) == ["a"]
    (tmp_path / "latin.csv").write_bytes(header + b"x,1,2,a\ncaf\xe9,1,2,a\n")
    with pytest.raises(InputError, match=r"latin.csv, row 3: byte 0xe9.*UTF-8"):
        read_preferences(tmp_path / "latin.csv")


def test_bad_options_are_named(write: Write) -> None:
    path = write("p.csv", "prompt,video_id_a,video_id_b,preference\nx,1,2,a\n")
    with pytest.raises(InputError, match="unknown format 'csv'"):
        read_preferences(path, "csv")
    with pytest.raises(InputError, match="mapped to 'left'"):
        read_preferences(path, labels={"a": "left"})
    with pytest.raises(InputError, match="no such file"):
        read_preferences(path.with_name("absent.csv"))


def test_dataset_reads_what_it_saved(tmp_path: Path, write: Write) -> None:
    table = read_preferences(write("p.csv", 'prompt,video_id_a,video_id_b,preference\nNA,1,2,a\n"x\ny",3,4,b\n'))
    dataset = PreferenceDataset(filepath=str(tmp_path / "deeper/out.csv"))
    assert not dataset.exists()
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table)
    assert dataset.exists()


def test_clips_of_a_benchmark_follow_from_its_preferences(write: Write) -> None:
    path = write("p.csv", "prompt,video_path_a,video_path_b,preference\na cat,1.mp4,2.mp4,a\na cat,2.mp4,3.mp4,b\n")
    clips, preferences = PreferenceClipsDataset(filepath=str(path)).load(), PreferenceDataset(filepath=str(path)).load()
    assert sorted(clips["file"]) == ["1.mp4", "2.mp4", "3.mp4"]
    assert {*preferences["video_id_a"], *preferences["video_id_b"]} == set(clips["video_id"])


@pytest.mark.real_data
def test_published_files_are_read(real_data: Path) -> None:
    folder = real_data / "data/preferences"
    votes = read_preferences(folder / "genai_bench_video_votes.json", "genai_bench")
    assert votes["preference"].value_counts().to_dict() == {"b": 651, "a": 619, "tie": 619}
    example = read_preferences(folder / "videoalign_example.csv", "videogen_rewardbench", criterion="TA")
    assert list(example["preference"])[:3] == ["a", "a", "tie"]
