"""One table of claims of VisionReward, VideoReward, UnifiedReward and this project, with intervals and verdicts.

Claims about the checklist are measured here: every seed makes clips of 32 prompts, the embedded judge answers 16
questions about each, simulated people compare pairs of clips, and weights are fitted on the pairs of 24 prompts and
tested on the others. Other claims are trainings that take minutes to hours. Their differences and intervals are read
from the pages on which the benchmarks that measured them are described.

Every row has Student's interval over its seeds. P-values follow from mean and interval; Holm's correction is over all
rows. A claim is reproduced if it is significant at 0.05 after the correction and has the sign that the source claims.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from mpo_figures import PLACES
from sifting import MODELS, ROOT, configuration, fitted_checklist, sample
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import content_hash
from vr_pipeline.micro_world.config import PreferenceParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import simulate_preferences, utilities
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.tables import answers_matrix
from vr_pipeline.storage.atomic import write_text

COUNTS = (1, 2, 4, 8, 12, 16)
"""Numbers of questions; sets of questions are drawn."""
DRAWS = 8
PAIRS, FEW, CLIPS = 2000, 150, 16
VISION, VIDEO, UNIFIED, OWN = "VisionReward", "VideoReward", "UnifiedReward", "vr_pipeline"
BRACKET = re.compile(r"\[([+-]?\d*\.\d+), ([+-]?\d*\.\d+)\]")


class Row(NamedTuple):
    """A claim and its difference.

    Attributes:
        source: paper or project that claims it.
        claim: so that a positive difference supports it.
        mean: difference.
        low, high: Student's interval of 95 % over the seeds.
        seeds: number of them.
        measured: command, or page.
    """

    source: str
    claim: str
    mean: float
    low: float
    high: float
    seeds: int
    measured: str

    @property
    def p_value(self) -> float:
        """Two-sided, of Student's test that the mean over seeds is 0."""
        error = (self.high - self.low) / 2 / float(stats.t.ppf(0.975, self.seeds - 1))
        return 2 * float(stats.t.sf(abs(self.mean) / max(error, 1e-12), self.seeds - 1))


class Published(NamedTuple):
    """A row of a table on a page.

    Attributes:
        row: how it begins.
        bracket: which of the row's intervals is that over the seeds.
        sign: -1 if a negative difference supports the claim.
    """

    source: str
    claim: str
    page: str
    row: str
    bracket: int = 0
    sign: int = 1


MPO_CLAIMS = {
    VISION: ("MPO gains more than DPO {}", "MPO's worst dimension gains more than DPO's {}"),
    OWN: (
        "MPO gains more than DPO {}, 10 % errors, true weights",
        "MPO gains more than DPO {}, flicker is motion, true weights",
        "MPO gains more than DPO {}, flicker is motion, dynamics x4",
        "MPO's lead grows {}, flicker is motion, dynamics x4 against x1",
    ),
}
"""Claims about MPO in both worlds, by source."""
PUBLISHED = (
    *(
        Published(source, claim.format(place), "mpo", f"{claim.format(place)} |")
        for source, named in MPO_CLAIMS.items()
        for claim in named
        for place in PLACES.values()
    ),
    Published(
        OWN,
        "removing negative weights raises the gain where dimensions trade off, flicker is motion",
        "mpo",
        "removing negative weights raises the gain where",
    ),
    Published(
        OWN,
        "the checkpoint that a judge with errors likes best gains more than the last",
        "mpo",
        "the checkpoint that the judge with errors likes best",
    ),
    Published(
        OWN, "three rounds gain more than one, equal numbers of judged clips", "online", "three rounds against one"
    ),
    Published(
        VIDEO, "BT orders pairs better than regression, all pairs", "videoreward", "BT against regression, 100 %"
    ),
    Published(
        VIDEO, "BT orders pairs better than regression, 1 % of them", "videoreward", "BT against regression, 1 %"
    ),
    Published(VIDEO, "BTT predicts ties better than BT", "videoreward", "BTT against BT: accuracy with ties"),
    Published(VIDEO, "BTT shrinks differences of tied pairs", "videoreward", "BTT against BT: size of tied", sign=-1),
    Published(
        VIDEO,
        "the last token leaks the prompt into the visual score",
        "videoreward",
        "last token against special tokens: variance of visual",
    ),
    Published(
        VIDEO,
        "special tokens order pairs better than the last token",
        "videoreward",
        "last token against special tokens: right order",
        sign=-1,
    ),
    Published(VIDEO, "Flow-DPO gains more than reward-weighted regression", "flow", "Flow-DPO beats RWR", 1),
    Published(VIDEO, "Flow-DPO gains more than training on winners", "flow", "Flow-DPO beats supervised", 1),
    Published(
        VIDEO,
        "constant beta gains more than (1 - t)^2 beta",
        "flow",
        r"constant \(\beta\) beats \((1 - t)^2 \beta\) |",
        1,
    ),
    Published(VIDEO, "guidance raises the total", "guidance", "guidance raises the total |", 1),
    Published(
        VIDEO, "guidance needs a reward trained on noise", "guidance", "noisy-trained beats clean-trained, all three", 1
    ),
    Published(
        VIDEO,
        "a weight on visual raises visual more than other weights do",
        "guidance",
        "... more than weights on the",
        1,
    ),
    Published(UNIFIED, "joint training helps comparing", "unifiedreward", "joint training helps comparing"),
    Published(UNIFIED, "joint training helps scoring", "unifiedreward", "joint training helps scoring"),
    Published(OWN, "comparing in both orders is better than in one", "unifiedreward", "averaging both orders"),
    Published(
        UNIFIED, "sifting finds larger margins than points alone", "unifiedreward", "sifting by ranks and points gives"
    ),
    Published(
        UNIFIED, "sifting finds larger margins than comparisons alone", "unifiedreward", "sifting gives a larger margin"
    ),
)
COMMANDS = {
    "mpo": "benchmarks/mpo_claims.py",
    "online": "benchmarks/rounds.py",
    "videoreward": "benchmarks/videoreward_claims.py",
    "flow": "benchmarks/flow_claims.py",
    "guidance": "benchmarks/guidance.py",
    "unifiedreward": "benchmarks/unifiedreward_claims.py",
}
SEEDS = 5
"""Seeds of the benchmarks behind the pages."""

NOT_MEASURED = (
    (UNIFIED, "DPO on sifted answers makes a vision-language model answer better", "`python benchmarks/vlm_dpo.py`"),
)
NOT_TESTABLE = (
    (VISION, "higher accuracy than VideoScore and GPT-4o on MonetBench and GenAI-Bench", "needs the published models"),
    (VISION, "people prefer the clips after MPO", "needs people"),
    (VIDEO, "higher accuracy than VisionReward on VideoGen-RewardBench", "needs the published models and labels"),
    (UNIFIED, "image data help to judge video", "the micro-world has no images"),
)


def from_page(published: Published) -> Row:
    """Read difference and interval of a claim from its page."""
    lines = (ROOT / f"docs/{published.page}.md").read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith(f"| {published.row}") and BRACKET.search(line)]
    if not found:
        raise ValueError(f"docs/{published.page}.md has no row that begins with '{published.row}' and has an interval")
    low, high = (published.sign * float(text) for text in BRACKET.findall(found[0])[published.bracket])
    low, high = min(low, high), max(low, high)
    page = f"`python {COMMANDS[published.page]}`, [{published.page}]({published.page}.md)"
    return Row(published.source, published.claim, (low + high) / 2, low, high, SEEDS, page)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values after Holm's correction (1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    raised = np.array(p_values)[order] * (len(p_values) - np.arange(len(p_values)))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(value) for value in corrected]


def verdict(row: Row, corrected: float) -> str:
    """Say whether a claim is reproduced."""
    if corrected >= 0.05:
        return "not reproduced: undecided"
    return "reproduced" if row.mean > 0 else "not reproduced: the opposite"


def question_sets(reward: ChecklistReward, seed: int) -> dict[str, list[list[int]]]:
    """Sets of questions: so many drawn ones, and the strictest of every sub-dimension."""
    questions = reward.checklist.questions
    random = np.random.default_rng(seed)
    sets = {
        str(count): [
            sorted(random.choice(len(questions), count, replace=False).tolist())
            for _ in range(DRAWS if count < len(questions) else 1)
        ]
        for count in COUNTS
    }
    first: dict[str, int] = {}
    for at, question in enumerate(questions):
        first.setdefault(f"{question.dimension}/{question.sub_dimension}", at)
    return sets | {"strictest": [sorted(first.values())]}


def accuracy(difference: np.ndarray, right: np.ndarray) -> float:
    """Share of decided pairs in the right order; ties of the reward count half."""
    return float(np.where(difference == 0, 0.5, (difference > 0) == right).mean())


def measure(seed: int, reward: ChecklistReward, store: Path) -> dict[str, float]:
    """Fit weights on fresh clips and comparisons, and test them on pairs of other prompts."""
    path = store / f"seed{seed}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    generator = load_generator(
        GeneratorParameters.model_validate(configuration("generator") | {"path": str(MODELS / "generator")})
    )
    prompts = sorted(all_prompts(), key=lambda prompt: content_hash("claims", seed, prompt))[:32]
    index, clips = sample(generator, prompts, CLIPS, 3000 + seed, store)
    tables = [
        found.assign(video_id=name)
        for at in range(0, len(clips), 64)
        for name, found in zip(
            index["video_id"][at : at + 64], reward.look(reward.loaded(), clips[at : at + 64]), strict=True
        )
        if isinstance(found, pd.DataFrame)
    ]
    answers = reward.arrange(pd.concat(tables, ignore_index=True), index)
    ids = reward.checklist.question_ids
    oracle = Oracle.load(MODELS / "oracle.safetensors")
    known = oracle.probabilities(np.stack([clip.frames for clip in clips]), list(index["prompt"]), ids)
    compared = simulate_preferences(
        list(index["video_id"]),
        list(index["prompt"]),
        utilities(known, ids),
        PreferenceParameters(num_pairs=PAIRS),
        seed=seed,
    )
    compared = compared[compared["preference"] != "tie"]
    first, second = (
        answers_matrix(answers, compared[name].tolist(), ids, kind="binary") for name in ("video_id_a", "video_id_b")
    )
    held_out = compared["prompt"].isin(prompts[24:]).to_numpy()
    labels, groups = compared["preference"].to_numpy(), compared["prompt"].to_numpy()

    def tested(columns: list[int], pairs: np.ndarray, *, nonnegative: bool = True) -> float:
        weights = fit_weights(
            first[pairs][:, columns],
            second[pairs][:, columns],
            labels[pairs].tolist(),
            groups=groups[pairs].tolist(),
            answers="binary",
            penalty=0.001,
            bootstrap_samples=0,
            nonnegative=nonnegative,
        )
        difference = (first - second)[held_out][:, columns] @ weights.weights
        return accuracy(difference, labels[held_out] == "a")

    training, everything = np.flatnonzero(~held_out), list(range(len(ids)))
    few = np.random.default_rng(seed).choice(training, FEW, replace=False)
    equal = (first - second)[held_out].sum(axis=1)
    result = {
        name: float(np.mean([tested(columns, training) for columns in sets]))
        for name, sets in question_sets(reward, seed).items()
    }
    result |= {
        "equal": accuracy(equal, labels[held_out] == "a"),
        "signed": tested(everything, training, nonnegative=False),
        "few": tested(everything, few),
        "few, signed": tested(everything, few, nonnegative=False),
    }
    write_text(path, json.dumps(result, indent=1) + "\n")
    return result


def compared_here(table: pd.DataFrame) -> list[Row]:
    """Claims about the checklist, from the accuracies of every seed."""
    command = "`python benchmarks/claims.py`"
    every = str(COUNTS[-1])
    pairs = (
        (VISION, "16 questions predict preferences better than 4", every, "4"),
        (VISION, "16 questions predict preferences better than 8", every, "8"),
        (VISION, "graded questions predict better than the strictest one of each aspect", every, "strictest"),
        (VISION, "fitted weights predict better than equal weights", every, "equal"),
        (OWN, f"removing negative weights helps with {FEW} pairs", "few", "few, signed"),
        (OWN, "removing negative weights helps with all pairs", every, "signed"),
    )
    rows = []
    for source, claim, better, worse in pairs:
        values = (table[better] - table[worse]).to_numpy()
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        mean = float(values.mean())
        rows.append(Row(source, claim, mean, mean - half, mean + half, len(values), command))
    return rows


def table_of(rows: Sequence[Row]) -> list[str]:
    """The table in Markdown: what was measured, what was not, what cannot be."""
    corrected = holm([row.p_value for row in rows])
    lines = [
        "| source | claim | difference, 95 % over seeds | seeds | p, Holm | verdict | measured by |",
        "|---|---|---|---|---|---|---|",
    ]
    for source in (VISION, VIDEO, UNIFIED, OWN):
        for row, p in zip(rows, corrected, strict=True):
            if row.source == source:
                shown = f"{row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
                lines.append(
                    f"| {source} | {row.claim} | {shown} | {row.seeds} | {p:.2g} | {verdict(row, p)} | {row.measured} |"
                )
        lines += [
            f"| {name} | {claim} | | | | not measured | {how} |" for name, claim, how in NOT_MEASURED if name == source
        ]
        lines += [
            f"| {name} | {claim} | | | | not testable here: {why} | |"
            for name, claim, why in NOT_TESTABLE
            if name == source
        ]
    return lines


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the accuracy by number of questions, with Student's intervals over the seeds."""
    matplotlib.rcParams.update({"svg.hashsalt": "claims", "svg.fonttype": "none"})
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    values = table[[str(count) for count in COUNTS]].to_numpy()
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    axes.errorbar(
        COUNTS, values.mean(axis=0), yerr=half, marker="o", capsize=3, label="drawn questions, fitted weights"
    )
    for name, label in (("strictest", "the strictest of each aspect"), ("equal", "all, equal weights")):
        axes.axhline(table[name].mean(), linestyle=":", color=f"C{1 + (name == 'equal')}", label=label)
    axes.set(xlabel="questions", ylabel="right order, pairs of held-out prompts")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/claims", help="folder of results")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    arguments.store.mkdir(parents=True, exist_ok=True)
    reward = fitted_checklist()
    table = pd.DataFrame([measure(seed, reward, arguments.store) for seed in range(arguments.seeds)])
    draw(table, arguments.store / "claims.svg")
    rows = [*compared_here(table), *(from_page(published) for published in PUBLISHED)]
    text = "\n".join(table_of(rows)) + "\n"
    write_text(arguments.store / "claims.md", text)
    print(text)
    means: dict[str, Any] = {str(name): round(float(table[name].mean()), 4) for name in table}
    print(json.dumps({"benchmark": "claims", "seeds": arguments.seeds, "accuracy": means}))


if __name__ == "__main__":
    main()
