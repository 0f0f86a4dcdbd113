"""What a policy is, where it comes from and how well it did, as plain data and as the card beside it.

Sections as in Mitchell et al. 2019, Model Cards for Model Reporting: what it is, data, training, evaluation, use and
limits. Nothing in a card depends on when or where it was written, so the same training gives the same card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators.policy import Adapter, Policy
from vr_pipeline.storage.markdown import as_code, as_text
from vr_pipeline.terminal import visible
from vr_pipeline.training.inputs import listed_hash, pairs_hash, used_clips, used_prompts

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.training.config import DpoTrainingParameters
    from vr_pipeline.vlm.config import JudgeParameters

_LIMITS = (
    "The policy was trained to raise the reward of one judge. A higher reward is no proof of better clips: compare "
    "clips of the original and of the policy with your own eyes, or have people compare them, before you rely on it. "
    "It keeps what the base model is bound by: its licence, its biases, and what it cannot draw."
)


def training_facts(
    pairs: pd.DataFrame,
    prompts: pd.DataFrame,
    video_index: pd.DataFrame,
    validation: pd.DataFrame,
    checklist: Checklist,
    judge: JudgeParameters,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> dict[str, Any]:
    """What a policy was trained on and how it was judged, for its provenance.

    Args:
        pairs: the training pairs.
        prompts: table with prompt_id and prompt; those of the pairs are counted and hashed.
        video_index: the clips; those of the pairs are counted and hashed by content.
        validation: the judged checkpoints, empty for none.
        checklist: the judge's questions.
        judge: the judge.
        generator: what is trained.
        parameters: the training.

    Returns:
        plain values: base, data, settings, validation.
    """
    used, clips = used_prompts(pairs, prompts), used_clips(pairs, video_index)
    settings = {"path", "revision", "dtype", "num_frames", "height", "width"}
    facts: dict[str, Any] = {
        "base": {"family": generator.family, **generator.model_dump(include=settings)},
        "data": {
            "pairs": {"count": len(pairs), "hash": pairs_hash(pairs)},
            "prompts": {"count": len(used), "hash": listed_hash(used)},
            "clips": {"count": len(clips), "hash": listed_hash(clips)},
        },
        "settings": parameters.training.model_dump(mode="json"),
        "reward": {
            "checklist": checklist.name,
            "checklist_hash": checklist.hash,
            "judge": judge.path,
            "judge_revision": judge.revision,
        },
    }
    if parameters.validation is not None and len(validation):
        facts["validation"] = {
            **parameters.validation.model_dump(include={"splits", "videos_per_prompt", "seed"}),
            "checkpoints": [
                {str(name): _plain(value) for name, value in row.items()} for row in validation.to_dict("records")
            ],
        }
    return facts


def model_card(policy: Policy) -> str:
    """The card of a policy in Markdown, from the policy and its provenance alone."""
    facts = policy.provenance
    parts = [
        "# Preference-trained policy",
        _what(policy),
        "## Base model",
        _table({**_mapping(facts.get("base")), "identity of the weights": policy.base}),
        "## Data",
        _data(_mapping(facts.get("data"))),
        "## Training",
        _table({**_mapping(facts.get("objective")), **_mapping(facts.get("settings"))}),
        "## Evaluation",
        _evaluation(facts),
        "## How to load it",
        _loading(policy),
        "## Limits",
        _LIMITS,
    ]
    return visible("\n\n".join(part for part in parts if part) + "\n")


def _what(policy: Policy) -> str:
    if isinstance(policy, Adapter):
        kind = "A low-rank adapter for the denoiser of a text-to-video or text-to-image pipeline"
        size = sum(value.numel() for value in policy.tensors.values())
        facts = {
            "part of the pipeline": policy.component,
            "rank": policy.config["r"],
            "alpha": policy.config["lora_alpha"],
            "layers": ", ".join(policy.config["target_modules"]),
            "parameters": f"{size:,}",
        }
    else:
        kind = "The fine-tuned denoiser of a text-to-video or text-to-image pipeline"
        facts = {"part of the pipeline": policy.component, "class": policy.config["_class_name"]}
    return f"{kind}, trained by vr_pipeline on pairs of generated clips that a judge ranked.\n\n" + _table(
        {**facts, "identity": policy.identity}
    )


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    lines = ["| what | number | hash of the content |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {name} | {entry['count']:,} | `{entry['hash']}` |" for name, entry in data.items())]
    )


def _evaluation(facts: Mapping[str, Any]) -> str:
    reward = _mapping(facts.get("reward"))
    said = []
    if reward:
        revision = f" at revision {as_text(reward['judge_revision'])}" if reward.get("judge_revision") else ""
        said.append(
            f"Judge: {as_code(reward['judge'])}{revision}, checklist {as_text(reward['checklist'])} "
            f"({as_code(reward['checklist_hash'])})."
        )
    validation = _mapping(facts.get("validation"))
    if not validation:
        return "\n\n".join([*said, "No checkpoint was validated: the last step of the training is the policy."])
    rows = validation["checkpoints"]
    dimensions = [name for name in rows[0] if str(name).startswith("dim_")]
    said.append(
        f"Mean reward on prompts of the split {as_text(' and '.join(validation['splits']))} (clips a prompt: "
        f"{validation['videos_per_prompt']}, from the same seeds at every checkpoint), with its standard error "
        "(prompts as clusters). Step 0 is the base model. The chosen checkpoint is the policy."
    )
    head = [
        "step",
        "reward",
        "standard error",
        "clips",
        *(as_text(name.removeprefix("dim_")) for name in dimensions),
        "chosen",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        figures = [_number(row["reward"]), _number(row["se"]), str(row["clips"])]
        figures += [_number(row[name]) for name in dimensions]
        lines.append(f"| {row['step']} | {' | '.join(figures)} | {'yes' if row['chosen'] else ''} |")
    said.append("\n".join(lines))
    chosen = next((row for row in rows if row["chosen"]), None)
    if chosen is not None and rows[0]["step"] == 0 and chosen["reward"] <= rows[0]["reward"]:
        said.append("No checkpoint got a higher validation reward than the base model.")
    return "\n\n".join(said)


def _loading(policy: Policy) -> str:
    base = _mapping(policy.provenance.get("base"))
    revision = f", revision={json.dumps(base['revision'])}" if base.get("revision") else ""
    dtype = f", torch_dtype=torch.{base['dtype']}" if base.get("dtype") else ""
    own_classes = base.get("family") == "micro_world"
    lines = ["import torch", "from diffusers import DiffusionPipeline", ""]
    if own_classes:
        lines = [
            "from vr_pipeline.generators import load_generator",
            "from vr_pipeline.generators.config import GeneratorParameters",
            "",
            f"path = {json.dumps(base['path'])}",
            'generator = load_generator(GeneratorParameters(family="micro_world", path=path, ...))',
            "pipeline = generator.pipeline",
        ]
    else:
        lines.append(
            f"pipeline = DiffusionPipeline.from_pretrained({json.dumps(base.get('path', 'BASE'))}{revision}{dtype})"
        )
    if isinstance(policy, Adapter):
        lines.append('pipeline.load_lora_weights("THIS_FOLDER")')
    else:
        name, of = policy.component, policy.config["_class_name"]
        lines.insert(1, f"from diffusers import {of}")
        lines.append(f'pipeline.{name} = {of}.from_pretrained("THIS_FOLDER", subfolder="{name}"{dtype})')
    return "\n".join(["```python", *lines, "```"])


def _table(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    lines = ["| | |", "|---|---|"]
    known = {name: value for name, value in facts.items() if value is not None}
    return "\n".join([*lines, *(f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in known.items())])


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)
    return as_text(text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """A Python scalar for a numpy one; None for what is not a number, which JSON cannot hold."""
    scalar = getattr(value, "item", lambda: value)()
    return None if isinstance(scalar, float) and scalar != scalar else scalar
