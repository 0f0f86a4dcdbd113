"""Existing pairs of clips: winner and loser, usable clips, and held-out prompts.

Every pair of the file keeps a row with its status and reason.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError, about
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
    """Return one row per pair; the clip with more votes of annotators is the winner.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`, one row per vote.

    Returns:
        pair_id, prompt_id, prompt, winner_video_id, loser_video_id (for a tie in the order of their identifiers),
        votes, winner_share, loser_share, contradicted (both clips have votes), status ('kept', 'tie' or 'same_clip')
        and reason; sorted by pair_id.
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
    """Check every clip of the decided pairs, and find the changes that make it fit the generator.

    Args:
        preferences: content of the file, with video_path_a and video_path_b as names in the folder.
        pairs: of :func:`decide_pairs`; clips of ties only are not checked.
        folder: paths by clip name.
        generator: for which the clips are fitted.
        parameters: rule of the changes.

    Returns:
        table of ``schemas.GivenClips``: the original file, the fitted clip and the changes; a clip that is missing,
        unreadable or does not fit has status 'failed' and the reason.
    """
    used = preferences[preferences["pair_id"].isin(pairs.loc[pairs["status"] == KEPT, "pair_id"])]
    return index_fitted_clips(clips_to_judge(used), folder, "given_pairs", generator, parameters)


def index_fitted_clips(
    clips: pd.DataFrame,
    folder: Mapping[str, Path],
    source: str,
    generator: GeneratorParameters,
    parameters: FitParameters,
) -> pd.DataFrame:
    """Return the table of :func:`examine_clips` for the clips of a table.

    Args:
        clips: video_id, prompt and file.
        folder: paths by file name.
        source: origin of the table, for messages.
        generator: for which the clips are fitted.
        parameters: rule of the changes.
    """
    wanted = wanted_by(generator)

    def examine(clip: VideoInformation) -> dict[str, object]:
        rule = fitting_rule(clip, wanted, parameters)
        if rule.problem:
            return {"error": rule.problem}
        return {"rule": "; ".join(rule.changes), "shown": " ".join(map(str, rule.frames))}

    index = index_given_clips(clips, folder, source=source, examine=examine)
    usable = index["status"] == "ok"
    for name in ("rule", "shown"):
        index[name] = index[name].where(usable, "").astype(str) if name in index else ""
    for name in ("num_frames", "fps", "height", "width"):
        value = getattr(wanted, name)
        index[f"fitted_{name}"] = [value if fits else type(value)() for fits in usable]
    # Training uses the frames that the rule makes from the file.
    by = (wanted, parameters.model_dump_json())
    index["content"] = [content_hash("fitted clip", digest, *map(str, by)) for digest in index["sha256"]]
    _log_changes(index)
    return index


def wanted_by(generator: GeneratorParameters) -> Wanted:
    """Return the clip format of a generator."""
    return Wanted(generator.num_frames, generator.height, generator.width, generator.fps)


def fitted_clips(
    clips: pd.DataFrame, folder: Mapping[str, Path], generator: GeneratorParameters, parameters: FitParameters
) -> FittedClips:
    """Return the usable clips, fitted to the generator.

    Args:
        clips: table of ``schemas.GivenClips``.
        folder, generator, parameters: as for :func:`examine_clips`.
    """
    usable = clips[clips["status"] == "ok"]
    files = {video: folder[path] for video, path in zip(usable["video_id"], usable["path"], strict=True)}
    return FittedClips(files, wanted_by(generator), parameters)


def kinds_of_changes(clips: pd.DataFrame) -> dict[str, int]:
    """Count the usable clips by kind of change; a clip can have several."""
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


def _log_changes(clips: pd.DataFrame) -> None:
    usable, failed = clips[clips["status"] == "ok"], clips[clips["status"] != "ok"]
    changes = ", ".join(f"{count} {kind}" for kind, count in kinds_of_changes(clips).items())
    logger.info("Of %d given clips %d are used: %s", len(clips), len(usable), changes or "none")
    if len(failed):
        logger.warning(
            "%d of %d given clips are unusable; the first is '%s': %s",
            len(failed),
            len(clips),
            failed["path"].iloc[0],
            failed["error"].iloc[0],
        )


def keep_usable(pairs: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs with their final status; pairs with unusable clips or of the same file are not kept.

    Raises:
        InputError: no pair is kept.
    """
    known = clips.set_index("video_id")
    errors = known["error"].where(known["status"] != "ok", "")
    pairs = pairs.copy()
    open_ = pairs["status"] == KEPT
    for side in ("loser", "winner"):  # of two reasons, that of the winner is kept
        reason = pairs.loc[open_, f"{side}_video_id"].map(errors)
        failed = reason.index[reason != ""]
        names = pairs.loc[failed, f"{side}_video_id"].map(known["path"])
        pairs.loc[failed, "status"] = CLIP_FAILED
        pairs.loc[failed, "reason"] = [*map(about, names, reason[failed])]
    content = known["sha256"]
    alike = (pairs["status"] == KEPT) & (pairs["winner_video_id"].map(content) == pairs["loser_video_id"].map(content))
    pairs.loc[alike, ["status", "reason"]] = [SAME_CLIP, "winner and loser are the same file"]
    counts = pairs["status"].value_counts()
    if not counts.get(KEPT, 0):
        first = next(iter(pairs["reason"]), "there are no pairs")
        raise InputError(
            f"none of {len(pairs)} given pairs is usable; the first: {first}",
            remedy="see given_pair_decisions, and correct the file or the clips",
            file="given_pairs",
        )
    logger.info("Given pairs: %s", ", ".join(f"{counts.get(name, 0)} {name.replace('_', ' ')}" for name in STATUSES))
    return pairs


def divide_prompts(pairs: pd.DataFrame, parameters: HeldOutParameters) -> pd.DataFrame:
    """Return the prompts of the kept pairs, split by a hash of the prompt.

    Of two prompts, one compares policies; of fewer than five, none measures the training. A single prompt is in the
    split 'test', but also used for training.

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
            "The given pairs have %d prompt(s): %d for comparing policies, %d for measuring the training%s. These are "
            "too few to generalise to other prompts",
            len(order),
            test,
            measured,
            "" if len(order) > 1 else "; the only one is also used for training",
        )
    return prompts.assign(source="given pairs", split=[split.get(name, "train") for name in prompts["prompt_id"]])


def _number(prompts: int, share: float, most: int, *, least: int) -> int:
    """Return the number of prompts of a share above 0: at least ``least``, but never all of several."""
    if share == 0:
        return 0
    return min(max(round(prompts * share), least), most, max(1, prompts - 1))


def training_table(
    pairs: pd.DataFrame, clips: pd.DataFrame, prompts: pd.DataFrame, recipe: str, held_out: str
) -> pd.DataFrame:
    """Return the kept pairs as table of ``schemas.TrainingPairs`` without rewards.

    Args:
        pairs: of :func:`keep_usable`.
        clips: table of ``schemas.GivenClips``.
        prompts: of :func:`divide_prompts`.
        recipe: name for training pairs.
        held_out: name for pairs that measure the training.
    """
    split = pairs["prompt_id"].map(prompts.set_index("prompt_id")["split"])
    # A single prompt is for training and for comparing.
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
    """Return the segments of the pairs in the fitted clips."""
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
    """Return counts of given pairs, clips and prompts, and every unused pair with its reason."""
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
