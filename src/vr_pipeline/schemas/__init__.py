"""Schemas of every table in the catalog, used there as native validators (``validator: vr_pipeline.schemas.X``).

Listed columns are checked on load and save; further columns are allowed, for users' own annotations. Identifiers are
strings made by :mod:`vr_pipeline.identifiers`.
"""

import math
from typing import Optional

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.benchmark import BenchmarkBiases as BenchmarkBiases
from vr_pipeline.schemas.benchmark import BenchmarkDifferences as BenchmarkDifferences
from vr_pipeline.schemas.benchmark import BenchmarkFigures as BenchmarkFigures
from vr_pipeline.schemas.benchmark import BenchmarkJudgedPairs as BenchmarkJudgedPairs
from vr_pipeline.schemas.benchmark import BenchmarkLeftOut as BenchmarkLeftOut
from vr_pipeline.schemas.benchmark import BenchmarkPairs as BenchmarkPairs
from vr_pipeline.schemas.benchmark import BenchmarkScores as BenchmarkScores
from vr_pipeline.schemas.guidance import GuidanceDrift as GuidanceDrift
from vr_pipeline.schemas.latents import LatentRewardPairs as LatentRewardPairs
from vr_pipeline.schemas.latents import LatentRewardReport as LatentRewardReport
from vr_pipeline.schemas.pairs import Comparisons as Comparisons
from vr_pipeline.schemas.pairs import PreferencePairs as PreferencePairs
from vr_pipeline.schemas.prompts import FilteredPrompts as FilteredPrompts
from vr_pipeline.schemas.prompts import PromptFilterDecisions as PromptFilterDecisions
from vr_pipeline.schemas.prompts import PromptsOnTheirWay as PromptsOnTheirWay
from vr_pipeline.schemas.prompts import RawPrompts as RawPrompts
from vr_pipeline.schemas.table import Table as Table
from vr_pipeline.schemas.table import share
from vr_pipeline.schemas.understanding import QuestionIndex as QuestionIndex
from vr_pipeline.schemas.understanding import Questions as Questions
from vr_pipeline.schemas.understanding import ResponsePairs as ResponsePairs
from vr_pipeline.schemas.understanding import VlmAnswers as VlmAnswers
from vr_pipeline.schemas.unified import UnifiedItems as UnifiedItems
from vr_pipeline.schemas.unified import UnifiedRewardReport as UnifiedRewardReport


class VideoIndex(Table):
    """One row per requested clip; a clip that could not be made or read has status 'failed' and the reason."""

    video_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    prompt: Series[str]
    sample_index: Series[int] = pa.Field(ge=0)
    seed: Series[int]
    generator: Series[str]
    path: Series[str] = pa.Field(description="relative to the folder of clips")
    num_frames: Series[int] = pa.Field(ge=0)
    fps: Series[float] = pa.Field(ge=0)
    height: Series[int] = pa.Field(ge=0)
    width: Series[int] = pa.Field(ge=0)
    sha256: Series[str]
    status: Series[str] = pa.Field(isin=["ok", "failed"])
    error: Series[str]
    round: Optional[Series[int]] = pa.Field(ge=1, description="round of online training in which it was made")


class PreferenceClips(Table):
    """Clips that people compared, before they are indexed; sample_index, seed and generator may follow."""

    video_id: Series[str] = pa.Field(str_length={"min_value": 1})
    prompt: Series[str]
    file: Series[str] = pa.Field(description="path relative to the folder of clips")


class EvaluationVideoIndex(VideoIndex):
    """Clips of every policy on held-out prompts."""

    policy: Series[str]


class ChecklistAnswers(Table):
    """Answers of the judge, one row per clip and question."""

    video_id: Series[str]
    question_id: Series[str]
    p_yes: Series[float] = pa.Field(ge=0.0, le=1.0, description="P(yes) / (P(yes) + P(no))")
    answer: Series[bool] = pa.Field(description="p_yes > 0.5")
    outside_mass: Series[float] = pa.Field(ge=0.0, le=1.0, description="probability of all other tokens")
    gated: Series[bool] = pa.Field(description="true if a gate question excludes this one")
    frames_judged: Optional[Series[int]] = pa.Field(ge=1, description="frames of the clip that were judged")
    sampling: Optional[Series[str]] = pa.Field(
        description="rate and largest number of these frames, evenly spread over the clip"
    )


class HumanPreferences(Table):
    """Pairs of clips that people compared; several rows of one pair are of several annotators.

    Beside the overall preference there may be labels and grades by criterion; missing ones are masked.
    """

    pair_id: Series[str]
    prompt: Series[str]
    video_id_a: Series[str]
    video_id_b: Series[str]
    preference: Series[str] = pa.Field(isin=["a", "b", "tie"])
    annotator: Series[str]
    source: Series[str]
    criteria: Optional[Series[str]] = pa.Field(
        alias=r"^preference_.+", regex=True, nullable=True, isin=["a", "b", "tie"]
    )
    grades: Optional[Series[float]] = pa.Field(
        alias=r"^grade_[ab]_.+", regex=True, nullable=True, gt=-math.inf, lt=math.inf
    )
    segments: Optional[Series[str]] = pa.Field(nullable=True, description="the better clip in each part, as a,b,tie,a")


class LabelledPairs(Table):
    """Compared pairs, one row each: the label of all annotators, their shares, and the side of the split."""

    pair_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    prompt: Series[str]
    video_id_a: Series[str]
    video_id_b: Series[str]
    share_a: Series[float] = pa.Field(ge=0.0, le=1.0, description="share of the annotators who preferred A")
    share_b: Series[float] = pa.Field(ge=0.0, le=1.0)
    share_tie: Series[float] = pa.Field(ge=0.0, le=1.0)
    annotators: Series[int] = pa.Field(ge=1)
    preference: Series[str] = pa.Field(isin=["a", "b", "tie"])
    split: Series[str] = pa.Field(
        isin=["fit", "held_out", "overlap"],
        description="by a hash of the prompt; overlap: excluded from the fit because policies are tested on the prompt",
    )
    source: Series[str] = pa.Field(description="the file of preferences")
    weight: Series[float] = pa.Field(gt=0, description="weight of the pair in the fit")


class PromptOverlaps(Table):
    """Prompts used for testing, and for training the weights or the policies."""

    tested: Series[str] = pa.Field(isin=["validation", "test", "held_out_preferences"])
    trained: Series[str] = pa.Field(isin=["weights", "policies"])
    prompt_id: Series[str]
    prompt: Series[str]
    kind: Series[str] = pa.Field(isin=["exact", "near"])
    similarity: Series[float] = pa.Field(gt=0, le=1, description="Rouge-L F1; 1 for the same normalised text")
    nearest_prompt: Series[str]


class PairScores(Table):
    """Reward differences of compared pairs."""

    pair_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    video_id_a: Series[str]
    video_id_b: Series[str]
    preference: Series[str] = pa.Field(isin=["a", "b", "tie"])
    split: Series[str] = pa.Field(isin=["fit", "held_out"])
    difference: Series[float] = pa.Field(description="reward of A minus reward of B")


class WeightRemovals(Table):
    """Questions without weight, in order of removal (step 0: the same answer in every pair)."""

    step: Series[int] = pa.Field(ge=0)
    question_id: Series[str] = pa.Field(unique=True)
    weight: Series[float] = pa.Field(le=0.0, description="weight before removal")
    reason: Series[str]


class AccuracyCurve(Table):
    """Accuracy on held-out pairs by number of questions kept."""

    n_questions: Series[int] = pa.Field(ge=1)
    weighting: Series[str] = pa.Field(isin=["learned", "refitted", "equal"])
    answers: Series[str] = pa.Field(isin=["probability", "binary"])
    last_question: Series[str]
    diff: Series[float] = share("accuracy without human ties")
    diff_se: Series[float] = pa.Field(ge=0.0, nullable=True, description="standard error by prompt")
    ci_low: Series[float] = share("95 % interval of diff by prompt, from")
    ci_high: Series[float] = share("95 % interval of diff by prompt, to")
    tau: Series[float] = pa.Field(ge=0.0, le=1.0, nullable=True)


class SubDimensionDeviations(Table):
    """Difference of the share of yes between two sets of clips, by sub-dimension."""

    dimension: Series[str]
    sub_dimension: Series[str]
    score: Series[float]
    other_score: Series[float]
    deviation: Series[float]
    ci_low: Series[float] = pa.Field(nullable=True)
    ci_high: Series[float] = pa.Field(nullable=True)


class Rewards(Table):
    """Rewards of clips: the total, and one column ``dim_<name>`` per dimension."""

    video_id: Series[str]
    prompt_id: Series[str]
    total: Series[float] = pa.Field(gt=-math.inf, lt=math.inf)
    dimensions: Optional[Series[float]] = pa.Field(
        alias=r"^dim_.+", regex=True, nullable=False, gt=-math.inf, lt=math.inf
    )
    round: Optional[Series[int]] = pa.Field(ge=1)
    uncertainty: Optional[Series[float]] = pa.Field(ge=0.0, description="mean entropy of the judge's answers, bits")


class EvaluationRewards(Rewards):
    """Rewards of the clips of every policy on held-out prompts."""

    policy: Series[str]


class ClipSpread(Table):
    """Diversity of the clips of each policy, by prompt, as shares of the range of pixels."""

    prompt_id: Series[str]
    policy: Series[str]
    diversity: Series[float] = share("root mean square difference of two clips of the prompt")
    drift: Series[float] = share("the same of a clip and the original's of its seed")


class OracleAnswers(Table):
    """Answers of an oracle on evaluation clips; empty without one."""

    video_id: Series[str]
    question_id: Series[str]
    p_yes: Series[float] = pa.Field(ge=0.0, le=1.0)


class TrainingPairs(Table):
    """Pairs of all recipes with their prompts, and contents and rewards of their clips.

    Single clips of a recipe whose objective learns from them are rows with an empty loser_video_id.
    """

    prompt_id: Series[str]
    winner_video_id: Series[str]
    loser_video_id: Series[str]
    recipe: Series[str]
    prompt: Series[str] = pa.Field(nullable=True)
    image: Optional[Series[str]] = pa.Field(nullable=True, description="first frame of the prompt's clips")
    winner_sha256: Series[str] = pa.Field(nullable=True)
    winner_reward: Series[float] = pa.Field(nullable=True)
    loser_sha256: Series[str] = pa.Field(nullable=True)
    loser_reward: Series[float] = pa.Field(nullable=True)
    segments: Optional[Series[str]] = pa.Field(
        nullable=True, description="parts in which the winner (a) or the loser (b) is better, each with its frames"
    )
    round: Optional[Series[int]] = pa.Field(ge=1, description="round of online training that made its clips")


class GivenClips(VideoIndex):
    """Clips of given pairs: the file, its form for the generator, and the changes between the two."""

    fitted_num_frames: Series[int] = pa.Field(ge=0)
    fitted_fps: Series[float] = pa.Field(ge=0)
    fitted_height: Series[int] = pa.Field(ge=0)
    fitted_width: Series[int] = pa.Field(ge=0)
    rule: Series[str] = pa.Field(description="the changes in words; empty for none")
    shown: Series[str] = pa.Field(description="numbers of the used frames of the file, from 0")
    content: Series[str] = pa.Field(description="hash of the file and of the rule")


class GivenPairs(Table):
    """The fate of every given pair, one row each."""

    pair_id: Series[str] = pa.Field(unique=True)
    prompt_id: Series[str]
    prompt: Series[str]
    winner_video_id: Series[str]
    loser_video_id: Series[str]
    votes: Series[int] = pa.Field(ge=1, description="of annotators")
    winner_share: Series[float] = pa.Field(ge=0.0, le=1.0, description="share of the votes for the winner")
    loser_share: Series[float] = pa.Field(ge=0.0, le=1.0)
    contradicted: Series[bool] = pa.Field(description="both clips have votes")
    status: Series[str] = pa.Field(isin=["kept", "tie", "same_clip", "clip_failed"])
    reason: Series[str] = pa.Field(description="why the pair is not kept")
    segments: Optional[Series[str]] = pa.Field(
        nullable=True, description="parts in which the winner (a) or the loser (b) is better"
    )


class TrainingLog(Table):
    """Curves of preference training, one row per optimiser step."""

    step: Series[int] = pa.Field(ge=1, unique=True)
    loss: Series[float]


class ValidationLog(Table):
    """Judged checkpoints of a training, one row each; step 0 is the original. Empty if none were judged."""

    step: Series[int] = pa.Field(ge=0, unique=True)
    policy: Series[str] = pa.Field(description="identity of the weights")
    reward: Series[float] = pa.Field(description="mean over clips")
    se: Series[float] = pa.Field(ge=0.0, nullable=True, description="standard error, prompts as clusters")
    clips: Series[int] = pa.Field(ge=1)
    failed: Series[int] = pa.Field(ge=0)
    chosen: Series[bool] = pa.Field(description="this checkpoint became the policy")
    gap_low: Series[float] = pa.Field(nullable=True, description="95 % interval of the lead over the chosen one, from")
    gap_high: Series[float] = pa.Field(nullable=True, description="95 % interval of the lead over the chosen one, to")
    dimensions: Optional[Series[float]] = pa.Field(alias=r"^dim_.+", regex=True, nullable=False)
    hold_outs: Optional[Series[float]] = pa.Field(
        alias=r"^hold_out_.+", regex=True, nullable=True, description="by rewards that the training does not use"
    )
    alarm: Optional[Series[str]] = pa.Field(description="alarm for reward hacking; empty for none")
    below: Optional[Series[str]] = pa.Field(description="dimensions below the original, for which it is not chosen")


class AblationTrainings(Table):
    """Trainings of an ablation, one row each; figures are means over the last tenth of the steps."""

    policy: Series[str] = pa.Field(unique=True)
    pairs: Series[str] = pa.Field(description="pair rule of its training pairs")
    objective: Series[str]
    seed: Series[int]
    steps: Series[int] = pa.Field(ge=0)
    error: Series[str] = pa.Field(description="reason of a failure; else empty")
    loss: Series[float] = pa.Field(nullable=True)
    implicit_accuracy: Series[float] = pa.Field(ge=0.0, le=1.0, nullable=True)
    winner_change: Series[float] = pa.Field(nullable=True, description="winners' error minus the original's")
    loser_change: Series[float] = pa.Field(nullable=True, description="losers' error minus the original's")
    gradient_norm: Series[float] = pa.Field(ge=0.0, nullable=True)


class AblationGains(Table):
    """Gains of pair rules and objectives, one row per dimension, source and baseline."""

    pairs: Series[str] = pa.Field(description="pair rule")
    objective: Series[str]
    source: Series[str] = pa.Field(isin=["judge", "oracle"])
    dimension: Series[str] = pa.Field(description="total, or the name of a dimension")
    against: Series[str] = pa.Field(description="original, or another combination as pairs.objective")
    original: Series[float] = pa.Field(description="mean reward of the baseline")
    reward: Series[float] = pa.Field(description="mean reward of this combination")
    gain: Series[float] = pa.Field(description="mean over prompts, with the clips of all seeds")
    ci_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    ci_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
    lowest_seed: Series[float] = pa.Field(description="smallest gain of a seed")
    highest_seed: Series[float] = pa.Field(description="largest gain of a seed")
    seeds: Series[int] = pa.Field(ge=1)
    prompts: Series[int] = pa.Field(ge=1)


class JudgeAnnotations(Table):
    """Known answers for training a judge, one row per clip and question; prompt, caption, split, source may follow."""

    video_id: Series[str]
    question_id: Series[str]
    label: Series[bool] = pa.Field(description="true for yes")


class JudgeQuestionReport(Table):
    """Accuracy of a judge on held-out clips, by question."""

    source: Series[str]
    question_id: Series[str]
    n: Series[int] = pa.Field(ge=0)
    positives: Series[float] = pa.Field(nullable=True)
    accuracy: Series[float] = pa.Field(nullable=True)
    balanced_accuracy: Series[float] = pa.Field(nullable=True)
    calibration_error: Series[float] = pa.Field(nullable=True)
    calibration: Series[str]


class PreferenceRewardReport(Table):
    """Agreement of a trained reward with people on pairs of test prompts: one row per dimension, and 'total'."""

    dimension: Series[str] = pa.Field(unique=True)
    n: Series[int] = pa.Field(ge=0, description="labelled pairs")
    ties: Series[int] = pa.Field(ge=0, description="pairs with a human tie")
    prompts: Series[int] = pa.Field(ge=0, description="prompts; those that share clips count as one")
    accuracy_with_ties: Series[float] = share("tau: ties predicted by the threshold of validation pairs")
    accuracy_with_ties_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    accuracy_with_ties_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
    accuracy_without_ties: Series[float] = share("diff: pairs without a human tie")
    accuracy_without_ties_low: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, from")
    accuracy_without_ties_high: Series[float] = pa.Field(nullable=True, description="95 % interval by prompt, to")
    best_accuracy_with_ties: Series[float] = share("tau with the best threshold on these pairs")
    always_tie: Series[float] = share("accuracy with ties of the constant answer 'tie'")
    log_likelihood: Series[float] = pa.Field(le=0.0, nullable=True, description="mean over pairs")
    tie_threshold: Series[float] = pa.Field(ge=0.0, description="largest difference that is predicted as a tie")
    calibration_error: Series[float] = share("mean difference of predicted and observed probability")


class PreferenceRewardReliability(Table):
    """Predicted probabilities of a trained reward and labels of people on test prompts, in bins."""

    dimension: Series[str]
    outcome: Series[str] = pa.Field(isin=["better", "tie"], description="'better': two predictions per pair")
    low: Series[float] = pa.Field(ge=0.0, le=1.0, description="bin of the predicted probability, from")
    high: Series[float] = pa.Field(ge=0.0, le=1.0 + 1e-9, description="to")
    n: Series[int] = pa.Field(ge=1)
    stated: Series[float] = pa.Field(ge=0.0, le=1.0, description="mean predicted probability")
    observed: Series[float] = pa.Field(ge=0.0, le=1.0, description="share of pairs with this outcome")
