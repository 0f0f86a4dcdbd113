"""From stored answers to rewards and pairs, by the nodes and catalog entries of mpo_dpo; time, memory and growth.

Answers of four clips per prompt to 64 questions are simulated and stored as ``checklist_inference`` stores them. Then
the nodes ``collect_answers``, ``score_videos`` and ``select_pairs`` run in a fresh process per size, which reports its
time and its peak memory. The same is done with pandas alone on a part of the prompts, in one process on the same
folder: one long table, gates by ``pivot``, sums by ``groupby``, and a loop over prompts.

``--keep`` names a folder for the answers of the last size; a later call resumes there, so that they are stored once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.datasets.catalog import ReplacingCatalog
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pairs.config import PairSelectionParameters
from vr_pipeline.pipelines import checklist_inference, pair_selection, weight_regression
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.runtime.memory import peak_memory
from vr_pipeline.work import Batch, WorkPlan, use_loop

ROOT = Path(__file__).parents[1]
CLIPS = 4
BATCHES_AT_A_TIME = 256
NODES = ("collect_answers", "score_videos", "select_pairs")


def questions() -> Checklist:
    """Return 64 questions in eight dimensions; the second of each dimension has the first as its gate."""
    dimensions = []
    for d in range(8):
        asked: list[dict[str, Any]] = [{"id": f"d{d}_q{q}", "text": f"Question {q} of {d}?"} for q in range(8)]
        asked[1]["gate"] = asked[0]["id"]
        dimensions.append({"name": f"d{d}", "sub_dimensions": [{"name": f"s{d}", "questions": asked}]})
    return checklist_from_mapping({"name": "benchmark", "modality": "video", "dimensions": dimensions})


def clip_index(prompts: int) -> pd.DataFrame:
    prompt_ids = sorted(content_hash("prompt", number) for number in range(prompts))
    rows = [(prompt, sample) for prompt in prompt_ids for sample in range(CLIPS)]
    index = pd.DataFrame(rows, columns=["prompt_id", "sample_index"])
    index["video_id"] = [content_hash("video", prompt, sample) for prompt, sample in rows]
    index["prompt"] = "prompt " + index["prompt_id"]
    index["path"] = index["video_id"] + ".mp4"
    return index.assign(sha256="0" * 64, status="ok")


class Simulated(ChecklistReward):
    """The checklist's reward with answers from a random generator in place of a judge."""

    measured_by = ("simulated",)  # type: ignore[assignment]
    recorded: Mapping[str, str] = {}  # type: ignore[assignment]

    def loaded(self) -> pd.DataFrame:
        one = {"frames_judged": 8, "sampling": "8 frames, evenly spread", "error": ""}
        return pd.DataFrame({"question_id": list(self.checklist.question_ids) * CLIPS, **one})

    def read_group(self, loaded: Any, videos: Any, clips: Any) -> None:
        return None

    def measure_group(self, loaded: Any, videos: Any, clips: Any, sampled: Any = None) -> pd.DataFrame:
        table, generator = loaded, np.random.default_rng(int(clips[0]["video_id"], 16))
        size, ids = len(self.checklist.question_ids), pd.array([clip["video_id"] for clip in clips], dtype="str")
        table = table.assign(
            p_yes=generator.random(len(table)).round(4), outside_mass=generator.random(len(table)) / 100
        )
        table.insert(0, "video_id", ids.repeat(size))
        return table


def catalog_in(folder: Path, prompts: int) -> ReplacingCatalog:
    """Return the project's catalog entries of these nodes, with their files in a folder."""
    entries: dict[str, Any] = {}
    for name in ("checklist_inference", "weight_regression", "pair_selection"):
        text = (ROOT / f"conf/base/catalog/{name}.yml").read_text(encoding="utf-8")
        entries |= yaml.safe_load(text.replace("${globals:data}", str(folder)))
    del entries["checklist"]
    entries = {name: entry for name, entry in entries.items() if str(folder) in str(entry) and "{" not in name}
    for recipe in ("dpo", "mpo"):
        place = str(folder / f"preference_pairs_{recipe}.parquet")
        pairs = {"type": "pandas.ParquetDataset", "filepath": place, "validator": "vr_pipeline.schemas.PreferencePairs"}
        entries[f"preference_pairs_{recipe}"] = pairs
    catalog = ReplacingCatalog.from_config({name: entries[name] for name in sorted(entries) if name in _USED})
    checklist = questions()
    catalog["checklist"] = checklist
    catalog["video_index"] = clip_index(prompts)
    catalog["params:checklist_inference"] = ChecklistInferenceParameters()
    values = np.random.default_rng(1).random(64)
    weights = RewardWeights(tuple(checklist.question_ids), values, checklist_hash=checklist.hash)
    catalog["reward_weights"] = weights.to_json()
    recipes = {"dpo": {"rule": "dpo"}, "mpo": {"rule": "mpo"}}
    catalog["params:pair_selection"] = PairSelectionParameters.model_validate({"recipes": recipes})
    return catalog


_USED = {"answer_shards", "checklist_answers", "rewards", "preference_pairs_dpo", "preference_pairs_mpo"}


def pipeline() -> Pipeline:
    parts = (checklist_inference, weight_regression, pair_selection)
    whole = sum(
        (__import__(f"{part.__name__}.pipeline", fromlist=["x"]).create_pipeline() for part in parts), Pipeline([])
    )
    return whole.only_nodes(*NODES)


def store(folder: Path, prompts: int) -> float:
    """Store the answers of a number of prompts, as the catalog does.

    Returns:
        processor seconds of this process; others make the answers.
    """
    start = time.process_time()
    with use_loop(by_other_processes):
        catalog_in(folder, prompts).save("answer_shards", Simulated(questions()).measure(None, clip_index(prompts)))
    return round(time.process_time() - start, 2)


def by_other_processes(plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
    """Make batches in other processes, so that the time of this one is that of storing them."""
    if not batches:
        return
    _WORK[:] = plan, plan.setup(), batches
    with get_context("fork").Pool(2) as pool:
        for start in range(0, len(batches), BATCHES_AT_A_TIME):
            numbers = range(start, min(start + BATCHES_AT_A_TIME, len(batches)))
            yield from zip(batches[start:], pool.map(_make, numbers, chunksize=16), strict=False)


_WORK: list[Any] = []


def _make(number: int) -> Sequence[Any]:
    plan, context, batches = _WORK
    return plan.make_batch(context, batches[number])


def run(folder: Path, prompts: int) -> dict[str, float]:
    """Run the nodes in this process."""
    catalog = catalog_in(folder, prompts)
    before, seconds, processor = peak_memory(), {}, time.process_time()
    for name in NODES:
        start = time.perf_counter()
        SequentialRunner().run(pipeline().only_nodes(name), catalog)
        seconds[name] = round(time.perf_counter() - start, 2)
    total = {"seconds": round(sum(seconds.values()), 2), "processor": round(time.process_time() - processor, 2)}
    return {**seconds, **total, "before_mb": before >> 20, "peak_mb": peak_memory() >> 20}


def in_fresh_process(folder: Path, prompts: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(folder), "--prompts", str(prompts)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def by_pandas(stored: ItemFolder, index: pd.DataFrame, weights: RewardWeights) -> set[tuple[str, str]]:
    """Return MPO's pairs from one long table, as one would write it first."""
    checklist = questions()
    answers = pd.concat([stored.load(key) for key in stored.keys], ignore_index=True)
    yes = answers.assign(yes=answers["p_yes"] > 0.5).pivot(index="video_id", columns="question_id", values="yes")
    p_yes = answers.pivot(index="video_id", columns="question_id", values="p_yes")
    for question in checklist.questions:
        for gate in checklist.gates_of(question.question_id):
            p_yes.loc[~yes[gate], question.question_id] = 0.0
    long = p_yes.reset_index().melt(id_vars="video_id", var_name="question_id", value_name="value")
    long["value"] *= long["question_id"].map(dict(zip(weights.question_ids, weights.weights, strict=True)))
    long["dimension"] = long["question_id"].map({one.question_id: one.dimension for one in checklist.questions})
    values = long.groupby(["video_id", "dimension"])["value"].sum().unstack()
    clips = index.set_index("video_id").join(values.assign(total=values.sum(axis=1)))
    chosen, names = set(), list(checklist.dimensions)
    for _, group in clips.groupby("prompt_id"):
        best: tuple[float, str, str] | None = None
        for a, b in combinations(group.index, 2):
            winner, loser = (a, b) if group.loc[a, "total"] > group.loc[b, "total"] else (b, a)
            margin = float(group.loc[winner, "total"] - group.loc[loser, "total"])
            gaps = (group.loc[winner, names] - group.loc[loser, names]).astype(float)
            if margin > 1e-9 and (gaps >= -1e-9).all():
                candidate = (-margin, winner, loser)
                best = candidate if best is None else min(best, candidate)
        if best is not None:
            chosen.add(best[1:])
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[2750, 5500, 11_000, 22_000], help="sizes, in turn")
    parser.add_argument("--compared", type=int, default=1000, help="prompts of the comparison with pandas; 0 for none")
    parser.add_argument("--keep", type=Path, help="folder for the stored answers of the last size")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(run(arguments.child, arguments.prompts[0])))
        return
    found: dict[str, Any] = {"benchmark": "tables", "clips": CLIPS, "questions": 64, "sizes": {}}
    for prompts in arguments.prompts:
        with tempfile.TemporaryDirectory() as place:
            folder = arguments.keep if arguments.keep and prompts == arguments.prompts[-1] else Path(place)
            row = {"store_processor": store(folder, prompts), **in_fresh_process(folder, prompts)}
            row["store_again_processor"] = store(folder, prompts)
        found["sizes"][prompts] = row
        print(f"{prompts} prompts, {prompts * CLIPS * 64} answers: {row}")
    if arguments.compared:
        with tempfile.TemporaryDirectory() as place:
            folder, prompts = Path(place), arguments.compared
            store(folder, prompts)
            run(folder, prompts)  # Imports count for neither.
            ours = run(folder, prompts)
            catalog = catalog_in(folder, prompts)
            weights = RewardWeights.from_json(catalog.load("reward_weights"))
            start, processor = time.perf_counter(), time.process_time()
            expected = by_pandas(catalog.load("answer_shards"), catalog.load("video_index"), weights)
            seconds, processor = time.perf_counter() - start, time.process_time() - processor
            pairs = catalog.load("preference_pairs_mpo")
            same = set(zip(pairs["winner_video_id"], pairs["loser_video_id"], strict=True)) == expected
            found["compared"] = {
                "prompts": prompts,
                "seconds": ours["seconds"],
                "processor": ours["processor"],
                "pandas_seconds": round(seconds, 2),
                "pandas_processor": round(processor, 2),
                "ratio": round(processor / ours["processor"], 1),
                "same_pairs": same,
            }
            print(found["compared"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
