"""Fine-tune text-to-video models with an interpretable reward.

Each name below is loaded when it is first used; importing the package imports no model library. Runnable examples are
in docs/from_python.md.

Prompts      rouge_l_f1, greedy_rouge_filter
Checklists   Checklist, load_checklist, read_visionreward
Rewards      RewardWeights, fit_weights, score, dimension_scores
Agreement    Agreement, pairwise_accuracy, read_preferences
Pairs        select_pairs
Objectives   diffusion_dpo_loss, flow_dpo_loss, ipo_loss, linear_dpo_loss, reg_dpo_loss, segment_dpo_loss, mapo_loss,
             reward_weighted_loss, nft_loss, sdpo_scale, bradley_terry_with_ties_loss
Video        read_frames, read_clip, write_video
Models       load_judge, load_generator, load_reward_model, load_ranker
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("vr_pipeline")
except PackageNotFoundError:  # used from a folder of sources that was never installed
    __version__ = "0+unknown"

_PUBLIC = {
    "prompts.rouge": ("rouge_l_f1", "greedy_rouge_filter"),
    "checklist": ("Checklist", "load_checklist"),
    "rewards.checklist.visionreward": ("read_visionreward",),
    "rewards.checklist.weights": ("RewardWeights",),
    "rewards.checklist.fit": ("fit_weights",),
    "rewards.checklist.linear": ("score", "dimension_scores"),
    "statistics.agreement": ("Agreement", "pairwise_accuracy"),
    "preferences.formats": ("read_preferences",),
    "pairs.selection": ("select_pairs",),
    "training.losses": (
        "diffusion_dpo_loss",
        "flow_dpo_loss",
        "ipo_loss",
        "linear_dpo_loss",
        "mapo_loss",
        "reg_dpo_loss",
        "sdpo_scale",
    ),
    "training.clip_losses": ("reward_weighted_loss", "nft_loss"),
    "training.segment_losses": ("segment_dpo_loss",),
    "video.read": ("read_frames", "read_clip"),
    "video.write": ("write_video",),
    "judges": ("load_judge",),
    "rewards.videoreward.losses": ("bradley_terry_with_ties_loss",),
    "rewards.registry": ("load_reward_model", "load_ranker"),
    "generators": ("load_generator",),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names beside what is loaded."""
    return sorted({*globals(), *_MODULES})
