"""Reading prompt files: formats, quarantine, and what stops with a clear message."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.prompts.read import read_prompts


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def good(table: pd.DataFrame) -> list[tuple[int, str, str]]:
    rows = table[table["problem"] == ""]
    return list(zip(rows["row"], rows["prompt"], rows["source"], strict=True))


def bad(table: pd.DataFrame) -> dict[int, str]:
    rows = table[table["problem"] != ""]
    assert (rows["prompt"] == "").all()
    return dict(zip(rows["row"], rows["problem"], strict=True))


def test_text_counts_lines_and_skips_blank_ones(tmp_path: Path) -> None:
    table = read_prompts(write(tmp_path, "p.txt", "a cat\r\n\n  \na dog, running\n"))
    assert good(table) == [(1, "a cat", "p.txt"), (4, "a dog, running", "p.txt")]


def test_csv_with_quotes_line_breaks_and_bad_rows(tmp_path: Path) -> None:
    content = 'prompt,source\n"a cat, ""big""\nand red",web\na dog\n"x"y,web\na fish,\n'
    table = read_prompts(write(tmp_path, "p.csv", content))
    assert good(table) == [(2, 'a cat, "big"\nand red', "web"), (6, "a fish", "p.csv")]
    problems = bad(table)
    assert "1 fields, the header 2" in problems[4]
    assert "cannot be parsed" in problems[5]


def test_tsv_jsonl_and_parquet_agree(tmp_path: Path) -> None:
    rows = [("a red ball", "x"), ("a blue ball", "y")]
    frame = pd.DataFrame(rows, columns=["prompt", "source"])
    frame.to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    frame.to_json(tmp_path / "p.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "p.parquet")
    for name in ("p.tsv", "p.jsonl", "p.parquet"):
        assert [(prompt, source) for _, prompt, source in good(read_prompts(tmp_path / name))] == rows


def test_jsonl_quarantines_lines_that_are_no_prompts(tmp_path: Path) -> None:
    lines = [
        '{"prompt": "a cat"}',
        "{broken",
        '{"prompt": 5}',
        '{"other": 1}',
        '"just text"',
        "[1]",
        '{"prompt": null}',
    ]
    table = read_prompts(write(tmp_path, "p.jsonl", "\n".join(lines)))
    assert [row[:2] for row in good(table)] == [(1, "a cat"), (5, "just text")]
    assert set(bad(table)) == {2, 3, 4, 6, 7}


def test_vidprom_columns_are_known(tmp_path: Path) -> None:
    header = "uuid,prompt,time,toxicity,obscene,identity_attack,insult,threat,sexual_explicit"
    content = f"{header}\nid-1,a cat,2023,0.1,0.2,0,0,0.05,0\nid-2,a dog,2023,high,0,0,0,0,0\n"
    table = read_prompts(write(tmp_path, "v.csv", content))
    first = table.iloc[0]
    assert (first["prompt"], first["source"], first["source_id"], first["unsafe_probability"]) == (
        "a cat",
        "VidProM",
        "id-1",
        0.2,
    )
    assert "not a number" in bad(table)[3]


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path, "p.csv", "Prompt\nein Käfer\n".encode(mark))
    assert good(read_prompts(path)) == [(2, "ein Käfer", "p.csv")]


def test_named_column(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", "short,long\na,b c\n")
    assert good(read_prompts(path, prompt_column="long")) == [(2, "b c", "p.csv")]


@pytest.mark.parametrize(
    ("name", "content", "row", "field", "text"),
    [
        ("p.csv", b"", None, None, "empty"),
        ("p.txt", b"\n\n", None, None, "no prompts"),
        ("p.csv", b"prompt\n", None, None, "no prompts"),
        ("p.csv", b"title,source\na,b\n", 1, "prompt", "'title', 'source'"),
        ("p.jsonl", b'\n{"title": "a"}\n', 2, "prompt", "'title'"),
        ("p.txt", b"b\x00ad\n", 1, None, "NUL"),
        ("p.csv", b"prompt\ngood\ncaf\xe9\n", 3, None, "0xe9"),
        ("p.csv", b'prompt,source\n"open,b\n', 2, None, "never closed"),
        ("p.jsonl", b"{broken\n[1]\n", 1, None, "none of the 2 rows"),
        ("p.parquet", b"no parquet", None, None, "not parquet"),
        ("p.doc", b"a", None, None, "'.doc'"),
    ],
)
def test_stops_with_file_row_field_and_remedy(
    tmp_path: Path, name: str, content: bytes, row: int | None, field: str | None, text: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read_prompts(path)
    error = caught.value
    assert (error.file, error.row, error.field) == (path, row, field)
    assert text in str(error)
    assert error.remedy


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "none.txt")


def test_bad_bytes_can_be_quarantined(tmp_path: Path) -> None:
    content = b'prompt,source\ngood,a\ncaf\xe9,b\n"two\nli\x00nes",c\nfine,d\n'
    table = read_prompts(write(tmp_path, "p.csv", content), on_bad_bytes="quarantine")
    assert [row[:2] for row in good(table)] == [(2, "good"), (6, "fine")]
    assert "not utf-8" in bad(table)[3]
    assert "NUL" in bad(table)[4]


def test_other_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", "café noir\n".encode("latin-1"))
    assert good(read_prompts(path, encoding="latin-1")) == [(1, "café noir", "p.txt")]
    with pytest.raises(InputError, match="not known"):
        read_prompts(path, encoding="klingon")


def test_parquet_with_other_types_and_nothing(tmp_path: Path) -> None:
    pd.DataFrame({"prompt": ["a cat", None]}).to_parquet(tmp_path / "p.parquet")
    table = read_prompts(tmp_path / "p.parquet")
    assert [row[:2] for row in good(table)] == [(1, "a cat")]
    assert set(bad(table)) == {2}
    pd.DataFrame({"prompt": [1, 2]}).to_parquet(tmp_path / "n.parquet")
    with pytest.raises(InputError, match="not text but int"):
        read_prompts(tmp_path / "n.parquet")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=["Cs"]), min_size=1, max_size=20),
            st.text("abc", min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=10,
    )
)
def test_nothing_is_lost_between_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    frame = pd.DataFrame(rows, columns=["prompt", "source"])
    frame.to_csv(folder / "p.csv", index=False, quoting=1)
    lines = [json.dumps({"prompt": prompt, "source": source}) for prompt, source in rows]
    (folder / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("p.csv", "p.jsonl"):
        assert [(prompt, source) for _, prompt, source in good(read_prompts(folder / name))] == rows
