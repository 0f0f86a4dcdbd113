"""Pipeline latent_reward_training, for generated clips or clips that people compared."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.latent_reward_training import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.training.latent_reward.labels import pairs_of_own_clips, pairs_of_people
from vr_pipeline.training.latent_reward.plots import latent_reward_figure

_SETTINGS = ["params:generator", "params:latent_reward_training"]


def create_pipeline(*, of_people: bool = False, **kwargs: Any) -> Pipeline:
    """Lead from pairs of clips to the folder of a latent reward and its test by noise level.

    Args:
        of_people: label pairs by people's preferences instead of the system's rewards.
    """
    return Pipeline(
        [
            *(_compared_pairs() if of_people else _own_pairs()),
            step(
                nodes.encode_prompts,
                ["latent_reward_pairs", *_SETTINGS],
                "latent_reward_conditions",
                name="encode_latent_reward_prompts",
                tags=["gpu"],
            ),
            step(
                nodes.train_latent_reward,
                ["latent_reward_pairs", "latent_reward_latents", "latent_reward_conditions", *_SETTINGS],
                ["latent_reward", "latent_reward_report", "latent_reward_log", "latent_reward_metrics"],
                tags=["gpu", "train"],
            ),
            step(
                latent_reward_figure,
                ["latent_reward_report", "latent_reward_log"],
                "latent_reward_figure",
                name="draw_latent_reward_report",
            ),
        ]
    )


def _own_pairs() -> list[Node]:
    return [
        step(
            pairs_of_own_clips,
            ["rewards", "video_index", "params:latent_reward_training"],
            "latent_reward_pairs",
            name="pair_own_clips",
        ),
        step(
            nodes.encode_latents,
            ["videos", "latent_reward_pairs", *_SETTINGS],
            "latent_reward_latents",
            name="encode_latent_reward_latents",
            tags=["gpu"],
        ),
    ]


def _compared_pairs() -> list[Node]:
    return [
        step(
            nodes.examine_compared_clips, ["preference_clips", "preference_videos", *_SETTINGS], "latent_reward_clips"
        ),
        step(
            pairs_of_people,
            ["human_preferences", "latent_reward_clips", "params:latent_reward_training"],
            "latent_reward_pairs",
            name="label_compared_clips",
        ),
        step(
            nodes.encode_compared_latents,
            ["latent_reward_pairs", "latent_reward_clips", "preference_videos", *_SETTINGS],
            "latent_reward_latents",
            tags=["gpu"],
        ),
    ]
