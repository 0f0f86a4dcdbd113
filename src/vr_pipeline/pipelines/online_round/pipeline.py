"""Pipeline online_round."""

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.checklist_inference.nodes import plan_checklist_answers
from vr_pipeline.pipelines.dpo_training.nodes import tabulate_training_curves
from vr_pipeline.pipelines.online_round import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import System

RESULTS = ("policy", "training_log", "validation_log", "result")
"""What a round hands to the next one."""


def create_pipeline(system: System, number: int, **kwargs: Any) -> Pipeline:
    """Lead from the policy of the last round to the policy of this one.

    Args:
        system: the last round also lists all of them.
        number: of the round.
    """

    def of(name: str, which: int = number) -> str:
        return f"{name}_round_{which}"

    def bound(function: Callable[..., Any]) -> Callable[..., Any]:
        return update_wrapper(partial(function, number=number), function)

    earlier, last = range(1, number), [of(name, number - 1) for name in RESULTS] if number > 1 else []
    online, generator, training = "params:online_mpo", "params:generator", "params:dpo_training"
    judging = ["params:judge", "params:checklist_inference"]
    made = [
        step(
            bound(nodes.choose_round_prompts),
            ["filtered_prompts", online, *last[3:], *(of("rewards", one) for one in earlier)],
            of("prompts"),
            name=of("choose_prompts"),
        ),
        step(
            bound(nodes.generate_round_videos),
            [of("prompts"), generator, online, *last[:1]],
            of("videos"),
            name=of("generate_videos"),
            tags=["gpu"],
        ),
        step(index_made_clips, of("videos"), of("video_index"), name=of("index_videos")),
        step(
            plan_checklist_answers,
            [of("videos"), of("video_index"), "checklist", *judging],
            of("answer_shards"),
            name=of("answer_checklist"),
            tags=["gpu"],
        ),
        step(
            nodes.collect_round_answers,
            [of("answer_shards"), of("video_index"), "checklist", judging[1]],
            of("answers"),
            name=of("collect_answers"),
        ),
        step(
            bound(nodes.score_round_videos),
            [of("answers"), of("video_index"), "checklist", "reward_weights"],
            of("rewards"),
            name=of("score_videos"),
        ),
        step(
            bound(nodes.select_round_pairs),
            [
                *(of("rewards"), of("video_index"), "filtered_prompts", "params:pair_selection", online),
                *(of("training_pairs", one) for one in earlier),
            ],
            of("training_pairs"),
            name=of("select_pairs"),
        ),
        step(
            bound(nodes.encode_round_latents),
            [of("videos"), of("training_pairs"), generator, training],
            of("latents"),
            name=of("encode_latents"),
            tags=["gpu"],
        ),
        step(
            bound(nodes.train_round),
            [
                *(of("training_pairs"), "online_checkpoint_reward", generator, training, online, "online_conditions"),
                *(of("latents", one) for one in range(1, number + 1)),
                *last,
            ],
            [of(name) for name in RESULTS],
            name=of("train_policy"),
            tags=["gpu", "train"],
        ),
        step(tabulate_training_curves, of("training_log"), of("training_curves"), name=of("tabulate_training_curves")),
    ]
    if number == len(system.recipes):
        results = [of("result", one) for one in range(1, number + 1)]
        made.append(step(nodes.list_rounds, results, "online_rounds"))
    return Pipeline(made)
