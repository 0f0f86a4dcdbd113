"""Identifiers and seeds: stable, unambiguous, independent of order."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.identifiers import code_hash, content_hash, normalise_prompt, pair_id, prompt_id, sample_seed, video_id

texts = st.text(max_size=20)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_hashes_of_different_parts_differ(first: list[str], second: list[str]) -> None:
    # ("ab", "c") and ("a", "bc") are not the same parts.
    assert (content_hash(*first) == content_hash(*second)) == (first == second)


def test_known_hashes_never_change() -> None:
    """Files on users' disks are named by these: a change here loses them."""
    assert content_hash("a", 1, b"x") == "87ed015814446194"
    assert prompt_id("A red ball") == "747c61c563f4fcef"
    assert video_id("p", 2, "g") == "ab651735215eb22a"
    assert sample_seed(0, "p", 1) == 4238712372244451654
    assert pair_id("p", "b", "a") == "1e545702024e714e"


@given(texts)
def test_a_prompt_is_recognised_whatever_its_case_spaces_and_width(text: str) -> None:
    assert normalise_prompt(normalise_prompt(text)) == normalise_prompt(text) or not text.isascii()
    assert prompt_id(f"  {text}\t") == prompt_id(text)
    if text.isascii():
        assert prompt_id(text.upper()) == prompt_id(text.lower())


def test_compatible_forms_of_unicode_are_one_prompt() -> None:
    assert prompt_id("Caf\u00e9") == prompt_id("cafe\u0301")
    assert prompt_id("\uff21 ball") == prompt_id("a ball")
    assert prompt_id("a ball") != prompt_id("a bell")
    # A lone half of a surrogate pair, as broken files have it, is hashed and not a crash.
    assert len(prompt_id("\ud800")) == 16


@given(texts, texts, texts)
def test_a_pair_has_no_order(prompt: str, first: str, second: str) -> None:
    assert pair_id(prompt, first, second) == pair_id(prompt, second, first)


@given(st.integers(), texts, st.integers(0, 10**6))
def test_seeds_fit_torch_and_numpy(base: int, prompt: str, sample: int) -> None:
    seed = sample_seed(base, prompt, sample)
    assert 0 <= seed < 2**63
    np.random.default_rng(seed)


def test_seeds_of_samples_prompts_and_bases_all_differ() -> None:
    seeds = {
        sample_seed(base, f"p{prompt}", sample) for base in range(10) for prompt in range(10) for sample in range(10)
    }
    assert len(seeds) == 1000
    # They use the whole range, so that neighbouring samples have nothing in common.
    assert abs(np.mean(list(seeds)) / 2**63 - 0.5) < 0.05


def test_identifiers_do_not_depend_on_the_process() -> None:
    code = "from vr_pipeline.identifiers import *; print(prompt_id('x'), sample_seed(1, 'x', 2))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}
    ).stdout
    assert shown.split() == [prompt_id("x"), str(sample_seed(1, "x", 2))]


def test_the_hash_of_code_is_that_of_what_it_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    hashes = {}
    for name, source in (("one", "a = 1"), ("two", "# A comment.\na  =  1\n"), ("three", "a = 2")):
        (tmp_path / f"code_{name}.py").write_text(source)
        hashes[name] = code_hash(f"code_{name}")
    assert hashes["one"] == hashes["two"] != hashes["three"]
    assert code_hash("code_one", "code_three", "code_one") == code_hash("code_three", "code_one")
