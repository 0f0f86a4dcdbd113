"""Human preferences: labels over annotators, agreement, usable pairs, split by prompt, clips."""

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError, about
from vr_pipeline.identifiers import content_hash, prompt_id


def aggregate_annotators(preferences: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair from one row per pair and annotator.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`; pairs can be in either order.

    Returns:
        pair_id, prompt_id, prompt, video_id_a, video_id_b (ordered by identifier), share_a, share_b, share_tie (of
        annotators), annotators, and preference: the label with most votes, or a tie; sorted by pair_id.
    """
    table = preferences[["pair_id", "prompt", "video_id_a", "video_id_b", "preference"]].astype(object)
    turned = (table["video_id_a"] > table["video_id_b"]).to_numpy(dtype=bool)
    first = table["video_id_a"].where(~turned, table["video_id_b"])
    second = table["video_id_b"].where(~turned, table["video_id_a"])
    label = table["preference"].where(~turned, table["preference"].map({"a": "b", "b": "a", "tie": "tie"}))
    oriented = table.assign(video_id_a=first, video_id_b=second)
    clips = oriented.drop_duplicates(["pair_id", "video_id_a", "video_id_b"])
    if clips["pair_id"].duplicated().any():
        pair = clips["pair_id"][clips["pair_id"].duplicated()].iloc[0]
        remedy = "give every pair its own pair_id"
        raise InputError(f"pair '{pair}' has more than two clips", remedy=remedy, field="pair_id")
    votes = (
        pd.crosstab(oriented["pair_id"], label).reindex(columns=["a", "b", "tie"], fill_value=0).astype(np.int64)
        if len(oriented)
        else pd.DataFrame(columns=["a", "b", "tie"], dtype=np.int64)
    )
    result = (
        oriented.drop_duplicates("pair_id")
        .sort_values("pair_id", ignore_index=True, kind="stable")
        .drop(columns="preference")
    )
    votes = votes.loc[result["pair_id"]]
    count = votes.to_numpy()
    annotators = count.sum(axis=1)
    result.insert(1, "prompt_id", [prompt_id(prompt) for prompt in result["prompt"]])
    for i, name in enumerate(("share_a", "share_b", "share_tie")):
        result[name] = count[:, i] / np.maximum(annotators, 1)
    result["annotators"] = annotators
    most = count.max(axis=1, initial=0)
    winner = np.where(count[:, 0] == most, "a", np.where(count[:, 1] == most, "b", "tie"))
    result["preference"] = np.where((count == most[:, None]).sum(axis=1) == 1, winner, "tie")
    return result


def annotator_agreement(preferences: pd.DataFrame) -> dict[str, float | int | None]:
    """Return the agreement of annotators of the same pair.

    Returns:
        ``pairs_with_several`` (pairs with two or more annotators), ``raw_agreement`` (share of pairs of annotators with
        the same label, averaged over pairs of clips), ``fleiss_kappa`` (corrected for chance with the overall shares of
        labels; Fleiss 1971, with varying numbers of annotators); null if undefined.
    """
    oriented = aggregate_annotators(preferences)
    shares = oriented[["share_a", "share_b", "share_tie"]].to_numpy(dtype=np.float64)
    annotators = oriented["annotators"].to_numpy(dtype=np.float64)
    counts = np.rint(shares * annotators[:, None])[annotators >= 2]
    return {"pairs": len(oriented), "annotations": int(annotators.sum()), **fleiss_kappa(counts)}


def fleiss_kappa(counts: np.ndarray) -> dict[str, float | int | None]:
    """Return the agreement of votes [items, labels]; items with fewer than two votes are ignored.

    Kappa is null with fewer than two items, and if all votes are equal.
    """
    votes = np.asarray(counts, dtype=np.float64)
    votes = votes[votes.sum(axis=1) >= 2] if votes.size else votes
    if not len(votes):
        return {"pairs_with_several": 0, "raw_agreement": None, "fleiss_kappa": None}
    number = votes.sum(axis=1)
    observed = float(((votes * (votes - 1)).sum(axis=1) / (number * (number - 1))).mean())
    expected = float(((votes.sum(axis=0) / votes.sum()) ** 2).sum())
    # With one label, chance explains all agreement.
    kappa = (observed - expected) / (1 - expected) if expected < 1 - 1e-12 and len(votes) > 1 else None
    return {"pairs_with_several": len(votes), "raw_agreement": observed, "fleiss_kappa": kappa}


def check_preferences(preferences: pd.DataFrame, video_index: pd.DataFrame) -> None:
    """Check preferences (:class:`vr_pipeline.schemas.HumanPreferences`, in file order) against the clips.

    Raises:
        InputError: there are none, or a row has an unknown clip or the same clip twice (rows counted from the header).
    """
    if not len(preferences):
        raise InputError("there are no preferences", remedy="give at least one row", file="human_preferences")

    def reject_first(wrong: pd.Series, column: str, problem: str, remedy: str) -> None:
        if wrong.any():
            row = int(wrong.to_numpy(dtype=bool).argmax())
            raise InputError(
                f"video '{preferences[column].iloc[row]}' {problem}",
                remedy=remedy,
                file="human_preferences",
                row=row + 2,
                field=column,
            )

    known = pd.Index(video_index["video_id"].astype(object))
    for column in ("video_id_a", "video_id_b"):
        unknown = ~preferences[column].isin(known)
        problem = f"is not one of the {len(known)} clips of preference_video_index ({int(unknown.sum())} such rows)"
        reject_first(unknown, column, problem, "Add the clip to preference_clips or remove the row")
    same = preferences["video_id_a"] == preferences["video_id_b"]
    reject_first(same, "video_id_b", "is compared with itself", "Correct the row or remove it")


def usable_pairs(pairs: pd.DataFrame, video_index: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs with two readable clips, and the others with the reason.

    Args:
        pairs: from :func:`aggregate_annotators` of checked preferences.
        video_index: their clips.
    """
    error = pd.Series(
        np.where(video_index["status"] == "ok", "", video_index["error"].replace("", "the clip could not be read")),
        index=pd.Index(video_index["video_id"].astype(object)),
        dtype=object,
    )
    reasons = {name: about(name, text) for name, text in error.items() if text}
    reason = pd.Series("", index=pairs.index, dtype=object)
    for column in ("video_id_b", "video_id_a"):
        of_clip = pairs[column].map(reasons)
        reason = of_clip.where(of_clip.notna(), reason)
    dropped = (reason != "").to_numpy()
    unusable = pairs.loc[dropped, ["pair_id", "prompt_id", "video_id_a", "video_id_b"]].assign(reason=reason[dropped])
    return pairs[~dropped].reset_index(drop=True), unusable.reset_index(drop=True)


def split_by_prompt(prompt_ids: pd.Series, held_out_share: float, seed: int) -> pd.Series:
    """Return 'fit' or 'held_out' for each prompt identifier, by a hash of the prompt.

    A prompt keeps its side when others are added. An otherwise empty side gets the prompt with the nearest hash.

    Raises:
        InputError: there are fewer than two prompts.
    """
    unique = sorted(set(prompt_ids))
    if len(unique) < 2:
        raise InputError(
            f"the preferences have {len(unique)} prompt(s), so none can be held out",
            remedy="give preferences for at least two prompts",
            field="prompt",
        )
    place = {prompt: int(content_hash("held out", seed, prompt), 16) / 2.0**64 for prompt in unique}
    ordered = sorted(unique, key=lambda prompt: place[prompt])
    held_out = {prompt for prompt in unique if place[prompt] < held_out_share}
    if not held_out:
        held_out = {ordered[0]}
    elif len(held_out) == len(unique):
        held_out.remove(ordered[-1])
    return prompt_ids.map(lambda prompt: "held_out" if prompt in held_out else "fit")


def clips_to_judge(preferences: pd.DataFrame) -> pd.DataFrame:
    """Return the clips of preferences for the table ``preference_clips``, one row each.

    Returns:
        video_id, prompt, file (empty for clips named by identifier only), sample_index (within a prompt), seed (0,
        unknown) and generator, sorted by prompt and identifier.
    """
    parts = []
    for side in ("a", "b"):
        part = pd.DataFrame({"video_id": preferences[f"video_id_{side}"], "prompt": preferences["prompt"]})
        for name, column in (("file", f"video_path_{side}"), ("generator", f"generator_{side}")):
            part[name] = preferences[column] if column in preferences.columns else ""
        parts.append(part)
    clips = pd.concat(parts, ignore_index=True).drop_duplicates("video_id")
    clips = clips.sort_values(["prompt", "video_id"], ignore_index=True, kind="stable")
    clips["sample_index"] = clips.groupby("prompt").cumcount()
    clips["seed"] = 0
    clips["generator"] = clips["generator"].replace("", "given")
    return clips[["video_id", "prompt", "file", "sample_index", "seed", "generator"]]
