"""Pairs that people already have: one winner and one loser each, usable clips, and prompts that are held out.

Every pair that a file names keeps a row with its fate, so nothing is lost without a reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.pairs.config import HeldOutParameters
from vr_pipeline.preferences.labels import aggregate_annotators, clips_to_judge
from vr_pipeline.preferences.segments import COLUMN as SEGMENTS
from vr_pipeline.preferences.segments import of_shown_frames, read_segments, segments_by_pair, segments_text
from vr_pipeline.video.clip import VideoInformation
from vr_pipeline.video.fit import FitParameters, FittedClips, Wanted, fitting_rule

logger = logging.getLogger(__name__)

KEPT, TIE, SAME_CLIP, CLIP_FAILED = "kept", "tie", "same_clip", "clip_failed"
STATUSES = (KEPT, TIE, SAME_CLIP, CLIP_FAILED)
_PAIR = ["pair_id", "prompt_id", "prompt", "winner_video_id", "loser_video_id"]


def decide_pairs(preferences: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair, from the votes of its annotators: the clip with more votes is the winner.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`; several rows of a pair are several votes.

    Returns:
        pair_id, prompt_id, prompt, winner_video_id, loser_video_id (of a tie the two in the order of their
        identifiers), votes, winner_share, loser_share, contradicted (both clips have votes), status ('kept' so far, or
        'tie', 'same_clip') and reason; sorted by pair_id.
    """
    same = preferences["video_id_a"] == preferences["video_id_b"]
    votes = aggregate_annotators(preferences)
    second = (votes["preference"] == "b").to_numpy(dtype=bool)
    first, other = votes["video_id_a"], votes["video_id_b"]
    a, b = votes["share_a"], votes["share_b"]
    decided = votes[["pair_id", "prompt_id", "prompt"]].assign(
        winner_video_id=first.where(~second, other),
        loser_video_id=other.where(~second, first),
        votes=votes["annotators"],
        winner_share=a.where(~second, b),
        loser_share=b.where(~second, a),
        contradicted=(a > 0) & (b > 0),
        status=KEPT,
        reason="",
    )
    if SEGMENTS in preferences:
        decided[SEGMENTS] = segments_by_pair(preferences, decided.set_index("pair_id")["winner_video_id"]).to_numpy()
    tied = votes["preference"] == "tie"
    decided.loc[tied, "status"] = TIE
    decided.loc[tied, "reason"] = [
        "the annotators contradict each other" if both else "the annotators see no difference"
        for both in decided.loc[tied, "contradicted"]
    ]
    alone = decided["pair_id"].isin(preferences.loc[same, "pair_id"])
    decided.loc[alone, ["status", "reason"]] = [SAME_CLIP, "the same clip is winner and loser"]
    return decided


def examine_clips(
    preferences: pd.DataFrame,
    pairs: pd.DataFrame,
    folder: Mapping[str, Path],
    generator: GeneratorParameters,
    parameters: FitParameters,
) -> pd.DataFrame:
    """Look at every clip of the decided pairs, and state what makes it fit the generator.

    Args:
        preferences: what the file says, with video_path_a and video_path_b as names in the folder.
        pairs: of :func:`decide_pairs`; clips of ties alone are not looked at.
        folder: path of every clip by its name.
        generator: what takes the clips.
        parameters: the rule.

    Returns:
        table of ``schemas.GivenClips``: the file as it is, what the generator is given, and the changes; a clip that
        is missing, does not decode or does not fit has status 'failed' and the reason.
    """
    wanted = wanted_by(generator)

    def examine(clip: VideoInformation) -> dict[str, object]:
        rule = fitting_rule(clip, wanted, parameters)
        if rule.problem:
            return {"error": rule.problem}
        return {"rule": "; ".join(rule.changes), "shown": " ".join(map(str, rule.frames))}

    used = preferences[preferences["pair_id"].isin(pairs.loc[pairs["status"] == KEPT, "pair_id"])]
    clips = index_given_clips(clips_to_judge(used), folder, source="given_pairs", examine=examine)
    usable = clips["status"] == "ok"
    for name in ("rule", "shown"):
        clips[name] = clips[name].where(usable, "").astype(str) if name in clips else ""
    for name in ("num_frames", "fps", "height", "width"):
        value = getattr(wanted, name)
        clips[f"fitted_{name}"] = [value if fits else type(value)() for fits in usable]
    # What is trained on are the frames that the rule makes of the file.
    by = (wanted, parameters.model_dump_json())
    clips["content"] = [content_hash("fitted clip", digest, *map(str, by)) for digest in clips["sha256"]]
    _tell_changes(clips)
    return clips


def wanted_by(generator: GeneratorParameters) -> Wanted:
    """Return what a generator takes."""
    return Wanted(generator.num_frames, generator.height, generator.width, generator.fps)


def fitted_clips(
    clips: pd.DataFrame, folder: Mapping[str, Path], generator: GeneratorParameters, parameters: FitParameters
) -> FittedClips:
    """Return the usable clips as the generator takes them.

    Args:
        clips: table of ``schemas.GivenClips``.
        folder, generator, parameters: as for :func:`examine_clips`.
    """
    usable = clips[clips["status"] == "ok"]
    files = {video: folder[path] for video, path in zip(usable["video_id"], usable["path"], strict=True)}
    return FittedClips(files, wanted_by(generator), parameters)


def kinds_of_changes(clips: pd.DataFrame) -> dict[str, int]:
    """Count the usable clips by each kind of change that was made to them; a clip may have several."""
    usable = clips[clips["status"] == "ok"]
    words = {
        "frames a second": "shown at another rate",
        "frames ": "cut to a part of their frames",
        "last frame": "prolonged by their last frame",
        "reduced": "reduced",
        "enlarged": "enlarged",
        "cut to": "cut at the edges",
        "padded": "padded with black",
    }
    counts: Counter[str] = Counter()
    for rule in usable["rule"]:
        parts = rule.split("; ") if rule else []
        if not parts:
            counts["taken as they are"] += 1
        for part in parts:
            kind = next((name for mark, name in words.items() if part.startswith(mark)), words["frames a second"])
            counts[kind] += 1
    return dict(sorted(counts.items()))


def _tell_changes(clips: pd.DataFrame) -> None:
    usable, failed = clips[clips["status"] == "ok"], clips[clips["status"] != "ok"]
    changes = ", ".join(f"{count} {kind}" for kind, count in kinds_of_changes(clips).items())
    logger.info("Of %d given clips %d are used: %s", len(clips), len(usable), changes or "none")
    if len(failed):
        logger.warning(
            "%d of %d given clips are set aside, the first, '%s': %s",
            len(failed),
            len(clips),
            failed["path"].iloc[0],
            failed["error"].iloc[0],
        )


def keep_usable(pairs: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs with their final status: those of clips that cannot be used, or are the same file, are not kept.

    Raises:
        InputError: none is left.
    """
    known = clips.set_index("video_id")
    errors = known["error"].where(known["status"] != "ok", "")
    pairs = pairs.copy()
    open_ = pairs["status"] == KEPT
    for side in ("loser", "winner"):  # of two reasons that of the winner counts
        reason = pairs.loc[open_, f"{side}_video_id"].map(errors)
        failed = reason.index[reason != ""]
        names = pairs.loc[failed, f"{side}_video_id"].map(known["path"])
        pairs.loc[failed, "status"] = CLIP_FAILED
        pairs.loc[failed, "reason"] = [f"{name}: {text}" for name, text in zip(names, reason[failed], strict=True)]
    content = known["sha256"]
    alike = (pairs["status"] == KEPT) & (pairs["winner_video_id"].map(content) == pairs["loser_video_id"].map(content))
    pairs.loc[alike, ["status", "reason"]] = [SAME_CLIP, "winner and loser are the same file"]
    counts = pairs["status"].value_counts()
    if not counts.get(KEPT, 0):
        first = next(iter(pairs["reason"]), "there are no pairs")
        raise InputError(
            f"none of {len(pairs)} given pairs can be trained on; the first: {first}",
            remedy="see given_pair_decisions, and correct the file or the clips",
            file="given_pairs",
        )
    logger.info("Given pairs: %s", ", ".join(f"{counts.get(name, 0)} {name.replace('_', ' ')}" for name in STATUSES))
    return pairs


def divide_prompts(pairs: pd.DataFrame, parameters: HeldOutParameters) -> pd.DataFrame:
    """Return the prompts of the kept pairs, each in one split by a hash of the prompt.

    With two prompts one is for comparing policies; with fewer than five none measures the training. A single prompt
    has the split 'test', and is trained on all the same.

    Returns:
        prompt_id, prompt, source ('given pairs') and split (train, validation, test), sorted by prompt_id.
    """
    prompts = pairs.loc[pairs["status"] == KEPT, ["prompt_id", "prompt"]].drop_duplicates("prompt_id")
    prompts = prompts.sort_values("prompt_id", ignore_index=True, kind="stable")
    order = sorted(prompts["prompt_id"], key=lambda name: content_hash("held out", parameters.salt, str(name)))
    test = _number(len(order), parameters.test_share, parameters.most, least=1)
    measured = _number(len(order), parameters.validation_share, parameters.most, least=int(len(order) >= 5))
    measured = min(measured, max(0, len(order) - test - 1))
    split = dict.fromkeys(order[:test], "test") | dict.fromkeys(order[test : test + measured], "validation")
    if len(order) < 10:
        logger.warning(
            "The given pairs have %d prompt(s): %d for comparing policies, %d for measuring the training%s. Too few to "
            "tell what policies do on other prompts",
            len(order),
            test,
            measured,
            "" if len(order) > 1 else "; the only one is also trained on",
        )
    return prompts.assign(source="given pairs", split=[split.get(name, "train") for name in prompts["prompt_id"]])


def _number(prompts: int, share: float, most: int, *, least: int) -> int:
    """Return how many prompts a share is: at least the least number, unless it is 0, and never all of several."""
    if share == 0:
        return 0
    return min(max(round(prompts * share), least), most, max(1, prompts - 1))


def training_table(
    pairs: pd.DataFrame, clips: pd.DataFrame, prompts: pd.DataFrame, recipe: str, held_out: str
) -> pd.DataFrame:
    """Return the kept pairs as trainings take them.

    Args:
        pairs: of :func:`keep_usable`.
        clips: table of ``schemas.GivenClips``.
        prompts: of :func:`divide_prompts`.
        recipe: of the pairs that are trained on.
        held_out: what stands in its place for those that measure the training.

    Returns:
        table of ``schemas.TrainingPairs``, without rewards.
    """
    split = pairs["prompt_id"].map(prompts.set_index("prompt_id")["split"])
    # A single prompt is trained on and compared on.
    trained = "train" if (prompts["split"] == "train").any() else "test"
    used = pairs[(pairs["status"] == KEPT) & split.isin([trained, "validation"])]
    table = used[["prompt_id", "winner_video_id", "loser_video_id"]].assign(
        recipe=[recipe if name == trained else held_out for name in split[used.index]], prompt=used["prompt"]
    )
    content = clips.set_index("video_id")["content"]
    for side in ("winner", "loser"):
        table[f"{side}_sha256"] = table[f"{side}_video_id"].map(content)
        table[f"{side}_reward"] = float("nan")
    if SEGMENTS in used:
        table[SEGMENTS] = _shown_segments(used, clips)
    return table.reset_index(drop=True)


def _shown_segments(pairs: pd.DataFrame, clips: pd.DataFrame) -> list[str]:
    """Return the segments of what the generator is given of the pairs' clips."""
    known = {
        video: ([int(frame) for frame in shown.split()], count)
        for video, shown, count in zip(clips["video_id"], clips["shown"], clips["num_frames"], strict=True)
    }
    return [
        segments_text(of_shown_frames(read_segments(text), (known[winner], known[loser])))
        for text, winner, loser in zip(
            pairs[SEGMENTS].fillna(""), pairs["winner_video_id"], pairs["loser_video_id"], strict=True
        )
    ]


def pairs_report(pairs: pd.DataFrame, clips: pd.DataFrame, prompts: pd.DataFrame) -> dict[str, Any]:
    """Return counts of given pairs, clips and prompts, and every pair that was set aside with its reason."""
    status = pairs["status"].value_counts()
    lost = pairs[~pairs["status"].isin([KEPT, TIE])]
    failed = clips[clips["status"] != "ok"]
    return {
        "pairs": {
            "given": len(pairs),
            **{name: int(status.get(name, 0)) for name in STATUSES},
            "contradicted": int(pairs["contradicted"].sum()),
            "votes": int(pairs["votes"].sum()),
            "several_votes": int((pairs["votes"] > 1).sum()),
        },
        "prompts": {name: int((prompts["split"] == name).sum()) for name in ("train", "validation", "test")},
        "clips": {
            "given": len(clips),
            "failed": len(failed),
            "changes": kinds_of_changes(clips),
            "sizes": size_counts(clips),
        },
        "set_aside": lost[[*_PAIR, "status", "reason"]].to_dict("records"),
        "failed_clips": failed[["path", "error"]].to_dict("records"),
    }


def size_counts(clips: pd.DataFrame) -> dict[str, int]:
    """Count the readable clips by frames, height and width as given, the most frequent first."""
    read = clips[clips["num_frames"] > 0]
    sizes = Counter(
        f"{frames} x {height} x {width}"
        for frames, height, width in zip(read["num_frames"], read["height"], read["width"], strict=True)
    )
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
