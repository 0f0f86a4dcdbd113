"""The one reader of tables: what arrives, what is rejected with its row, and what stops."""

from __future__ import annotations

import datetime
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.formats import examine_preferences, read_preferences
from vr_pipeline.prompts.read import read_prompts
from vr_pipeline.storage.csv_cells import MARKER, escape, unescape, write_csv
from vr_pipeline.storage.tables import Entries, left_out, read_entries
from vr_pipeline.storage.values import as_number, as_text

ROWS = [{"prompt": "a café, at “night”", "n": "007"}, {"prompt": "NA", "n": ""}, {"prompt": "一只猫", "n": "1e5"}]


def read(folder: Path, name: str, content: str | bytes, **options: Any) -> Entries:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_entries(path, **options)


def good(entries: Entries) -> dict[int, dict[str, Any]]:
    return {entry.row: entry.values for entry in entries.rows if not entry.problem}


def bad(entries: Entries) -> dict[int, str]:
    return {entry.row: entry.problem for entry in entries.rows if entry.problem}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_separators_and_encodings_are_seen(tmp_path: Path, separator: str, encoding: str) -> None:
    text = pd.DataFrame(ROWS).to_csv(sep=separator, index=False, lineterminator="\r\n")
    for name in ("t.csv", "t.tsv"):
        assert list(good(read(tmp_path, name, text.encode(encoding))).values()) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, ROWS)),
        "\r".join(map(json.dumps, ROWS)),
        "".join(map(json.dumps, ROWS)),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1, ensure_ascii=False),
        json.dumps({"data": ROWS, "version": 1}),
        json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
        pd.DataFrame(ROWS).to_json(),
        "\x1e" + "\n\x1e".join(map(json.dumps, ROWS)),
    ],
)
def test_json_in_every_layout_whatever_its_ending(tmp_path: Path, text: str) -> None:
    for name in ("t.json", "t.jsonl", "t.ndjson"):
        assert [row.values for row in read(tmp_path, name, text).rows] == ROWS
        assert [row.values for row in read(tmp_path, name + ".gz", gzip.compress(text.encode())).rows] == ROWS


def test_identifiers_as_keys_and_one_entry(tmp_path: Path) -> None:
    assert good(read(tmp_path, "t.json", '{"x": {"prompt": "a"}}')) == {1: {"item": "x", "prompt": "a"}}
    assert good(read(tmp_path, "t.json", '{"prompt": "a", "tags": ["b"]}')) == {1: {"prompt": "a", "tags": ["b"]}}


@pytest.mark.parametrize("character", "\u2028\u2029\x85\x0b\x0c\x1c")
def test_line_ends_of_unicode_belong_to_texts(tmp_path: Path, character: str) -> None:
    text = f"a cat{character}sleeps"
    lines = f'{{"prompt": {json.dumps(text, ensure_ascii=False)}}}\n'
    for name, content in (("t.jsonl", lines), ("t.csv", f"prompt\n{text}\n"), ("t.txt", f"{text}\n")):
        if character < " " and name == "t.jsonl":
            content = json.dumps({"prompt": text})
        assert [values["prompt"] for values in good(read(tmp_path, name, content)).values()] == [text], name


def test_one_bad_row_costs_one_row(tmp_path: Path) -> None:
    table = 'prompt,n\ngood,1\n"x"y,2\nshort\nlong,1,2\n"open,3\nfine,4\n\n,\n"two\nlines",5\n'
    entries = read(tmp_path, "t.csv", table)
    assert {row: values["prompt"] for row, values in good(entries).items()} == {2: "good", 7: "fine", 10: "two\nlines"}
    assert {row: problem.split(":")[0] for row, problem in bad(entries).items()} == {
        3: "the row cannot be parsed",
        4: "the row has 1 fields, the header 2",
        5: "the row has 3 fields, the header 2",
        6: "the row cannot be parsed",
    }
    lines = [
        '{"p": 1}',
        "{broken",
        '{"p": 2, "p": 3}',
        '"t\\ud800"',
        "[" * 100_000,
        "NaN",
        '{"p": "a\\u0000b"}',
        '{"p": 4}',
    ]
    for name in ("t.jsonl", "t.json"):
        entries = read(tmp_path, name, "\n".join(lines))
        assert set(good(entries)) == {1, 8}
        assert set(bad(entries)) == {2, 3, 4, 5, 6, 7}
        assert "'p' is there twice" in bad(entries)[3]
        assert "half a surrogate" in bad(entries)[4]
        assert "NUL" in bad(entries)[7]


def test_quotation_marks_between_tabs_are_text_where_they_quote_nothing(tmp_path: Path) -> None:
    table = 'prompt\tn\n"Hi" on a sign\t1\n"open\t2\n"a\tb"\t3\n'
    rows = [values["prompt"] for values in good(read(tmp_path, "t.tsv", table)).values()]
    assert rows == ['"Hi" on a sign', '"open', "a\tb"]


def test_columns_of_odd_names(tmp_path: Path) -> None:
    entries = read(tmp_path, "t.csv", "sep=;\n Prompt ;x;x;;\na;1;2;;\n")
    assert entries.find("prompt") == "Prompt"
    assert entries.find("y", "PROMPT") == "Prompt"
    assert good(entries) == {3: {"Prompt": "a", "x": "2"}}
    with pytest.raises(InputError, match=r"row 2, field 'x': there are 2 columns 'x'"):
        entries.find("x")
    with pytest.raises(InputError, match="no header"):
        read(tmp_path, "t.csv", "\n\n")


def test_bytes_of_another_encoding(tmp_path: Path) -> None:
    latin = "prompt\ngood\ncafé\n".encode("cp1252")
    with pytest.raises(InputError, match=r"row 3: byte 0xe9.*cp1252"):
        read(tmp_path, "t.csv", latin)
    assert list(good(read(tmp_path, "t.csv", latin, encoding="cp1252"))) == [2, 3]
    assert bad(read(tmp_path, "t.csv", latin, on_bad_bytes="quarantine")) == {
        3: "'prompt' has bytes that are not utf-8"
    }
    # A file that is UTF-8 elsewhere is UTF-8 with a damaged line.
    damaged = "prompt\nün\nöl\n".encode() + latin[12:]
    assert list(bad(read(tmp_path, "t.csv", damaged))) == [4]
    with pytest.raises(InputError, match="row 4"):
        read(tmp_path, "t.csv", damaged, on_bad_bytes="stop")


def test_long_cells(tmp_path: Path) -> None:
    text = "long " * 200_000
    assert good(read(tmp_path, "t.csv", f"prompt,n\n{text},1\n"))[2]["prompt"] == text


VALUES = {
    "big": [2**63 - 1, None, -(2**63)],
    "decimal": [Decimal("0.10"), Decimal("12345678901234567890.5"), None],
    "time": [datetime.datetime(2024, 1, 2, 3), None, datetime.datetime(9999, 1, 1)],
    "flag": [True, None, False],
    "list": [["a", "b"], [], None],
    "bytes": [b"\xff", b"", None],
    "text": ["NA", "", None],
    "nested": [{"a": [1]}, None, {"a": None}],
}


def test_parquet_keeps_every_type(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({**VALUES, "category": pa.array(["x", "y", "x"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "t.parquet")
    entries = read_entries(tmp_path / "t.parquet")
    assert {name: [row[name] for row in good(entries).values()] for name in VALUES} == VALUES
    assert [row["category"] for row in good(entries).values()] == ["x", "y", "x"]
    assert entries.table()["big"].tolist() == VALUES["big"]
    assert list(good(read_entries(tmp_path / "t.parquet", wanted=["BIG"]))[1]) == ["big"]


def test_values_as_texts_and_numbers() -> None:
    for value, text in (
        (2**63 + 1, str(2**63 + 1)),
        (3.0, "3"),
        (Decimal("12345678901234567890"), "12345678901234567890"),
        (float("nan"), ""),
        (None, ""),
        ("nan", "nan"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
    ):
        assert as_text(value) == text
    for value in ([1], {}, b"x", 1e17):
        with pytest.raises(ValueError, match=r"is not text|rounded"):
            as_text(value)
    assert [as_number(value) for value in ("1e5", 3, Decimal("0.5"))] == [1e5, 3.0, 0.5]
    assert all(number != number for number in map(as_number, (None, "", "NaN", float("nan"), Decimal("NaN"))))
    for value in ("inf", float("-inf"), True, "1_0", "high", [1]):
        with pytest.raises(ValueError, match="not a number"):
            as_number(value)


def test_a_file_of_mostly_bad_rows_stops(caplog: pytest.LogCaptureFixture) -> None:
    problems = [InputError("p", remedy="r", row=row) for row in (2, 3)]
    assert left_out(problems, 20, what="rows") == {2, 3}
    assert "2 of 20 rows are left out" in caplog.text
    assert left_out(problems[:1], 3, what="rows") == {2}
    for few, total in ((problems, 19), (problems[:1], 1)):
        with pytest.raises(InputError, match="row 2"):
            left_out(few, total, what="rows")


def test_probabilities_that_are_missing_hide_no_others(tmp_path: Path) -> None:
    rows: list[Any] = [[None, 0.9], ["NaN", "0.9"], ["", 0.1], [float("nan"), float("nan")], [2, 0], [float("inf"), 0]]
    lines = [json.dumps({"prompt": f"p{i}", "toxicity": a, "obscene": b}) for i, (a, b) in enumerate(rows)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    table = read_prompts(tmp_path / "t.jsonl")
    assert table["unsafe_probability"].fillna(-1).tolist() == [0.9, 0.9, 0.1, -1, -1, -1]
    assert table["problem"].ne("").tolist() == [False] * 4 + [True] * 2


def test_identifiers_keep_their_digits_and_spellings_are_one(tmp_path: Path) -> None:
    ids = [2**62 + 1, 2**62 + 2]
    rows = [
        {
            "prompt": prompt,
            "video_path_a": a,
            "video_path_b": "c.mp4",
            "preference": "a",
            "pair_id": pair,
            "annotator": who,
        }
        for prompt, a, pair, who in (
            ("a café", "a.mp4", ids[0], "Anna"),
            (" A  CAFE\u0301 ", "./a.mp4", None, "anna "),
            ("a café", "x/../a.mp4", ids[1], None),
        )
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    table = read_preferences(path)
    assert table["pair_id"].tolist()[::2] == [str(number) for number in ids]
    assert table["prompt"].tolist() == ["a café"] * 3
    assert table["annotator"].tolist() == ["Anna", "Anna", ""]
    assert table["video_id_a"].nunique() == 1
    path.write_text(json.dumps({**rows[0], "pair_id": float(2**60)}) + "\n" + json.dumps(rows[1]), encoding="utf-8")
    table, problems = examine_preferences(path)
    assert [(problem.row, problem.field) for problem in problems] == [(1, "pair_id")]
    assert "rounded" in str(problems[0])


def test_labels_by_their_value_and_prompts_that_are_no_text(tmp_path: Path) -> None:
    row = {"prompt": "a cat", "video_path_a": "a.mp4"}
    answers: list[Any] = [True, "true", False, 1.0, "2.0", 2, float("nan")]
    lines = [{**row, "video_path_b": f"{i}.mp4", "preference": answer} for i, answer in enumerate(answers)]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    table = read_preferences(path, labels={"True": "a", "FALSE": "b", "1": "a", "2": "b"})
    assert table["preference"].tolist() == ["a", "a", "b", "a", "b", "b"]
    assert table.attrs["rejected"] == 1
    odd = [{**lines[0], "prompt": 5}, {**lines[0], "pair_id": "1.23457E+18"}, {**lines[0], "annotator": ["x"]}]
    path.write_text("\n".join(map(json.dumps, odd)))
    _, problems = examine_preferences(path, labels={"True": "a"})
    assert [(problem.row, problem.field) for problem in problems] == [(1, "prompt"), (2, "pair_id"), (3, "annotator")]


def test_ratings_and_ranks_that_are_no_numbers_make_no_pairs(tmp_path: Path) -> None:
    rows = [
        {"group": "g", "prompt": "p", "item": f"{i}.png", "Overall": rating} for i, rating in enumerate((3, 1, None, 2))
    ]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    table = read_preferences(path, "rated_items")
    assert set(table["video_path_a"]) | set(table["video_path_b"]) == {"0.png", "1.png", "3.png"}
    assert table["preference"].tolist() == ["a", "a", "b"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12), max_size=6))
def test_escaped_texts_begin_no_formula_and_come_back(texts: list[str]) -> None:
    for text in [*texts, *(f"{quote}{text}" for text in texts for quote in ("=", "'=", "\t", " +", "-", "''@", "＝"))]:
        assert not escape(text).startswith(("=", "+", "-", "@", "\t", "\r"))
        assert unescape(escape(text)) == text


def test_an_export_is_safe_and_is_read_back(tmp_path: Path) -> None:
    prompts = ["=HYPERLINK(1)", "'=x", "+1", "-a cat", "@b", "\tc", "plain", "'quoted'", "a\nb"]
    table = pd.DataFrame({"prompt": prompts, "=score": [-0.5] * len(prompts)})
    write_csv(table, tmp_path / "t.csv")
    for entry in read_entries(tmp_path / "t.csv").rows:
        assert entry.values == {"prompt": prompts[entry.row - 2] if entry.row < 10 else "a\nb", "=score": "-0.5"}
    raw = pd.read_csv(tmp_path / "t.csv", dtype=str)
    assert not raw[["prompt", "'=score"]].iloc[:, 0].str.match(r"[=+\-@\t\r]").any()
    assert list(raw) == ["prompt", "'=score", MARKER]
    write_csv(table, tmp_path / "raw.csv", raw=True)
    assert pd.read_csv(tmp_path / "raw.csv")["prompt"].tolist() == prompts
    # A file of others that happens to hold such a text is not changed.
    assert [entry.values["prompt"] for entry in read_entries(tmp_path / "raw.csv").rows] == prompts
    write_csv(table[["prompt"]].iloc[6:8], tmp_path / "safe.csv")
    assert (tmp_path / "safe.csv").read_text() == "prompt\nplain\n'quoted'\n"
