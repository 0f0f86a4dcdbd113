"""Tables and pictures for people who look around in the results of a run; the notebooks call these and nothing else.

Everything takes what the catalog loads, so each function can be used on the results of any environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.generators.policy import ORIGINAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.items.folder import ItemFolder
    from vr_pipeline.rewards.checklist.weights import RewardWeights


def open_catalog(environment: str = "local") -> Any:
    """Return the catalog of the project that the working directory lies in: ``open_catalog().load("rewards")``.

    Raises:
        NotInProject: the working directory is in no project.
    """
    from vr_pipeline.project.folder import project_context, project_folder
    from vr_pipeline.runtime.environment import prepare_environment

    prepare_environment()
    # Read by Kedro when its framework is imported; a notebook's working directory is not where it looks.
    logging = project_folder() / "conf" / "logging.yml"
    if logging.is_file():
        os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(logging))
    return project_context(environment).catalog


def fate_of_prompts(decisions: pd.DataFrame) -> pd.DataFrame:
    """Count prompts by fate: columns step, prompts and, for dropped ones, the most frequent reason."""
    rows = []
    for step, part in decisions.groupby("step", sort=False):
        reasons = part.loc[~part["kept"], "reason"].value_counts()
        rows.append(
            {"step": step, "prompts": len(part), "most often because": reasons.index[0] if len(reasons) else ""}
        )
    return pd.DataFrame(rows).sort_values("prompts", ascending=False, ignore_index=True, kind="stable")


def answers_by_question(answers: pd.DataFrame, checklist: Checklist) -> pd.DataFrame:
    """Return what the judge says, question by question, in the checklist's order.

    Columns: question_id, text, dimension; yes (share of the answers that are not gated), undecided (share with P(yes)
    from 0.4 to 0.6), outside_mass (median probability on other tokens), gated (share switched off).
    """
    rows = []
    by_question = dict(tuple(answers.groupby("question_id")))
    for question in checklist.questions:
        part = by_question.get(question.question_id)
        if part is None:
            continue
        asked = part[~part["gated"]]
        rows.append(
            {
                "question_id": question.question_id,
                "text": question.text,
                "dimension": question.dimension,
                "yes": asked["answer"].mean(),
                "undecided": asked["p_yes"].between(0.4, 0.6).mean(),
                "outside_mass": part["outside_mass"].median(),
                "gated": part["gated"].mean(),
            }
        )
    return pd.DataFrame(rows)


def weights_table(weights: RewardWeights, checklist: Checklist) -> pd.DataFrame:
    """Return the weights with their intervals and texts, largest first."""
    texts = {question.question_id: question for question in checklist.questions}
    content = weights.to_json()["questions"]
    table = pd.DataFrame(
        {
            "question_id": name,
            "dimension": texts[name].dimension,
            "weight": value["weight"],
            "ci_low": value["ci_low"],
            "ci_high": value["ci_high"],
            "removed": value["removed"],
            "text": texts[name].text,
        }
        for name, value in content.items()
    )
    return table.sort_values("weight", ascending=False, ignore_index=True, kind="stable")


def extreme_clips(rewards: pd.DataFrame, index: pd.DataFrame, *, count: int = 1) -> pd.DataFrame:
    """Return the clips with the lowest and the highest total reward, with their prompts; ``count`` of each."""
    order = (
        rewards[["video_id", "total"]]
        .sort_values(["total", "video_id"], kind="stable")
        .merge(index[["video_id", "prompt"]], on="video_id")
    )
    count = min(count, len(order) // 2)
    return pd.concat([order.head(count), order.tail(count)], ignore_index=True)[["video_id", "prompt", "total"]]


def what_moved_a_score(
    answers: pd.DataFrame, weights: RewardWeights, checklist: Checklist, video_id: str
) -> pd.DataFrame:
    """Return the parts of a clip's reward, question by question, largest change against the average clip first.

    Columns: question_id, text, p_yes, weight, part (weight times answer), average (the same over all clips of the
    table) and difference. The parts add up to the clip's total.

    Raises:
        KeyError: the table has no answers on this clip.
    """
    from vr_pipeline.rewards.checklist.linear import encoded_answers
    from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions

    clips = sorted(set(answers["video_id"]))
    if video_id not in clips:
        raise KeyError(video_id)
    matrix = answers_matrix(
        answers,
        clips,
        list(weights.question_ids),
        kind=weights.answers,
        always_probability=probability_questions(checklist),
    )
    parts = encoded_answers(matrix, weights) * weights.weights
    row = parts[clips.index(video_id)]
    own = answers[answers["video_id"] == video_id].set_index("question_id")
    texts = {question.question_id: question.text for question in checklist.questions}
    table = pd.DataFrame(
        {
            "question_id": weights.question_ids,
            "text": [texts[name] for name in weights.question_ids],
            "p_yes": own.loc[list(weights.question_ids), "p_yes"].to_numpy(),
            "weight": weights.weights,
            "part": row,
            "average": parts.mean(axis=0),
        }
    )
    table["difference"] = table["part"] - table["average"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def gains_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return gains over the original: columns policy, by (judge, oracle or auditor), gain, ci_low, ci_high."""
    rows = [
        {"policy": policy, "by": source, "gain": gain["mean"], "ci_low": gain["ci_low"], "ci_high": gain["ci_high"]}
        for policy, sources in metrics["gain"].items()
        for source, gain in sources.items()
    ]
    return pd.DataFrame(rows)


def rewards_by_policy(metrics: Mapping[str, Any], source: str = "judge") -> pd.DataFrame:
    """Mean reward by policy (rows) and dimension (columns), and in total, as in the paper's Table 4."""
    rows = {
        policy: {
            **{name: value["mean"] for name, value in sources[source]["dimensions"].items()},
            "total": sources[source]["total"]["mean"],
        }
        for policy, sources in metrics["policies"].items()
        if source in sources
    }
    return pd.DataFrame(rows).T


def pleasing_the_judge_alone(
    judge: pd.DataFrame, oracle: pd.DataFrame, index: pd.DataFrame, policy: str, *, count: int = 3
) -> pd.DataFrame:
    """Return clips of a policy that the judge rates above the original's and the oracle below, widest gap first.

    Both gains are in standard deviations of the respective rewards over all clips, so that they can be compared.

    Args:
        judge, oracle: rewards with policy and total; the oracle's may be empty, then the result is.
        index: video index with policy, prompt and sample_index.
        policy: the policy.
        count: rows at most.
    """
    if oracle.empty:
        return pd.DataFrame(columns=["prompt", "sample_index", "video_id", "judge", "oracle"])
    place = ["prompt_id", "sample_index"]
    gains = {}
    for name, table in (("judge", judge), ("oracle", oracle)):
        placed = table[["video_id", "prompt_id", "policy", "total"]].merge(
            index[["video_id", "prompt", "sample_index"]], on="video_id"
        )
        first = placed[placed["policy"] == ORIGINAL].set_index(place)["total"]
        own = placed[placed["policy"] == policy].set_index(place)
        gains[name] = own.assign(gain=(own["total"] - first) / max(float(table["total"].std()), 1e-12))
    both = gains["judge"][["prompt", "video_id"]].assign(judge=gains["judge"]["gain"], oracle=gains["oracle"]["gain"])
    both = both[(both["judge"] > 0) & (both["oracle"] < 0)].reset_index()
    order = (both["judge"] - both["oracle"]).sort_values(ascending=False, kind="stable").index[:count]
    return both.loc[order, ["prompt", "sample_index", "video_id", "judge", "oracle"]].reset_index(drop=True)


def clips_side_by_side(
    folder: ItemFolder, index: pd.DataFrame, prompt_id: str, *, sample_index: int = 0, frames: int = 4
) -> Figure:
    """Draw frames of one prompt and seed by every policy, one row each.

    Args:
        folder: the evaluation's clips.
        index: their video index, with policy.
        prompt_id: the prompt.
        sample_index: number of the clip among those of the prompt.
        frames: evenly spread frames of each clip.
    """
    from matplotlib.figure import Figure

    chosen = index[(index["prompt_id"] == prompt_id) & (index["sample_index"] == sample_index)]
    chosen = chosen.sort_values("policy", key=_original_first, kind="stable")
    figure = Figure(figsize=(1.4 + 1.3 * frames, 0.4 + 1.3 * max(1, len(chosen))), layout="constrained", dpi=110)
    axes = figure.subplots(max(1, len(chosen)), frames, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, clip in zip(axes, chosen.itertuples(), strict=False):
        row[0].text(-0.08, 0.5, clip.policy, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
        if clip.status != "ok":
            row[0].text(0, 0.5, "failed", fontsize=9)
            continue
        video = folder.load(str(clip.video_id))
        for axis, at in zip(row, np.linspace(0, len(video) - 1, frames).round().astype(int), strict=True):
            axis.imshow(video[at], interpolation="nearest")
    if len(chosen):
        figure.suptitle(str(chosen["prompt"].iloc[0]), fontsize=10)
    return figure


def _original_first(policies: pd.Series) -> pd.Series:
    return policies.map(lambda name: f"0{name}" if name == ORIGINAL else f"1{name}")
