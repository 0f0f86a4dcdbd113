"""The command ``kedro sample``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vr_pipeline.commands.options import AS_JSON, ENVIRONMENT, EXISTING_FILE, print_json, print_notes
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import aligned, echo, one_line

if TYPE_CHECKING:
    import pandas as pd

    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
    from vr_pipeline.generators.guidance import NoisedReward
    from vr_pipeline.generators.policy import Policy
    from vr_pipeline.items.folder import ItemFolder

LATENT_REWARD = "latent_reward"
"""Dataset of the latent reward that is trained for an environment's generator."""


def _weights(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            weights[name] = float(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise click.BadParameter(f"'{part}' is not DIMENSION=WEIGHT, for instance motion=0.7,text=0.3")
    return weights


@click.command(name="sample")
@click.argument("prompt")
@click.option("--count", default=4, show_default=True, type=click.IntRange(1, 99), help="Number of clips.")
@click.option("--seed", default=0, show_default=True, help="Base seed; a different seed gives different clips.")
@click.option(
    "--policy",
    "policy_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a trained policy [default: the original generator].",
)
@click.option(
    "--reward-weights",
    "weights",
    callback=_weights,
    metavar="LIST",
    help="Guide sampling by the latent reward: weights of its dimensions, for instance motion=0.7,text=0.3.",
)
@click.option("--scale", type=click.FloatRange(0), help="Strength of this guidance; 0 disables it.")
@click.option("--image", type=EXISTING_FILE, help="First frame of the clips, for image-to-video generators.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for these clips only.")
@ENVIRONMENT
@AS_JSON
def sample(prompt: str, policy_folder: Path | None, out: Path | None, env: str, as_json: bool, **asked: Any) -> None:
    """Make clips of PROMPT and show their scores.

    Scores come from the latent reward (at almost no noise) and from the environment's reward_model, if these exist.
    The clips and their manifest have their own folder; existing clips are not made again.
    """
    from vr_pipeline.generators import family_of

    with plain_errors():
        if not prompt.strip():
            raise click.UsageError("The prompt is empty.")
        project = _open(env)
        parameters = _steered(project, asked["weights"], asked["scale"])
        policy = _policy(policy_folder)
        image = None if asked["image"] is None else _image(asked["image"])
        family_of(parameters.family).check_images([prompt], None if image is None else [image])
        generator, reward = _generator(parameters, project.latent_reward, policy)
        made = _make(project, generator, policy, out, _Asked(prompt, asked["count"], asked["seed"]), image)
        scores, notes = _scores(project, generator, reward, made, prompt)
        if as_json:
            print_json({"prompt": prompt, "folder": str(made.folder), "notes": notes, "clips": scores})
        else:
            print_notes(notes)
            _print(scores)
            echo(f"\nIn {one_line(made.folder)}, with manifest.json.")
    if any(row.get("error") for row in scores):
        raise click.exceptions.Exit(1)


class _Asked(NamedTuple):
    prompt: str
    clips: int
    seed: int


class _Project(NamedTuple):
    """Parameters, globals, project folder and latent reward (None without one) of an environment."""

    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]
    folder: Path
    latent_reward: Path | None


def _open(env: str) -> _Project:
    from vr_pipeline.project.folder import project_context
    from vr_pipeline.project.places import stored_at

    context = project_context(env)
    catalog = context.catalog
    there = LATENT_REWARD in catalog and catalog.exists(LATENT_REWARD)
    latent_reward = stored_at(catalog, LATENT_REWARD) if there else None
    return _Project(context.params, context.config_loader["globals"], Path(context.project_path), latent_reward)


def _steered(project: _Project, weights: dict[str, float] | None, scale: float | None) -> GeneratorParameters:
    """Return the environment's generator with the guidance of the command line."""
    from vr_pipeline.errors import InputError
    from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward

    parameters = GeneratorParameters.model_validate(project.parameters["generator"])
    configured = parameters.guidance_reward
    given: tuple[tuple[str, Any], ...] = (("weights", weights), ("scale", scale))
    changes = {name: value for name, value in given if value is not None}
    if not changes:
        return parameters
    if configured is None:
        if weights is None:
            raise click.UsageError("--scale needs --reward-weights.")
        if project.latent_reward is None:
            raise InputError(
                "there is no latent reward for guidance",
                remedy="train one with kedro run --pipeline=latent_reward_training, or name one in the parameters",
                field="generator.guidance_reward.model",
            )
        changes["model"] = str(project.latent_reward)
    settings = {} if configured is None else configured.model_dump(by_alias=True)
    return parameters.model_copy(update={"guidance_reward": GuidanceReward.model_validate(settings | changes)})


def _image(path: Path) -> str:
    from vr_pipeline.video.first_frames import first_frame

    try:
        return first_frame(path.parent, path.name, min_side=1)
    except ValueError as error:
        raise click.UsageError(f"--image: {error}.") from None


def _policy(folder: Path | None) -> Policy | None:
    from vr_pipeline.datasets.policy import PolicyDataset

    return None if folder is None else PolicyDataset(path=str(folder)).load()


def _generator(
    parameters: GeneratorParameters, latent_reward: Path | None, policy: Policy | None
) -> tuple[PipelineGenerator, NoisedReward | None]:
    """Load the generator with a policy, and the latent reward that guides it or only scores its clips."""
    from vr_pipeline.generators import load_generator
    from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
    from vr_pipeline.generators.latent_reward import LatentReward

    generator = load_generator(parameters)
    assert isinstance(generator, PipelineGenerator)
    if generator.guidance is not None:
        reward: NoisedReward | None = generator.guidance.reward
    else:
        reward = None if latent_reward is None else LatentReward.load(latent_reward, generator)
    generator.load_policy(policy)
    return generator, reward


def _make(
    project: _Project,
    generator: PipelineGenerator,
    policy: Policy | None,
    out: Path | None,
    asked: _Asked,
    image: str | None,
) -> ItemFolder:
    from vr_pipeline.generators.samples import plan_samples, producer_of
    from vr_pipeline.identifiers import content_hash, image_content
    from vr_pipeline.items.filling import fill_folder

    plan = plan_samples(asked.prompt, generator, policy, count=asked.clips, seed=asked.seed, image=image)
    if out is None:
        words = re.sub(r"[^a-z0-9]+", "-", asked.prompt.casefold())[:40].strip("-")
        own = content_hash(
            producer_of(generator.parameters, policy), *asked, *([image_content(image)] if image else []), length=8
        )
        data = project.folder / str(project.settings["data"])
        out = data / "07_model_output" / "samples" / f"{words or 'prompt'}-{own}"
    else:
        _check_folder(out, {item.key: item.identity for item in plan.items})
    return fill_folder(out, dict(project.settings["clips"]), plan)


def _check_folder(folder: Path, planned: Mapping[str, str]) -> None:
    """Reject a folder with other clips, because they would be removed."""
    from vr_pipeline.errors import InputError
    from vr_pipeline.items.manifest import MANIFEST, read_manifest

    manifest = folder / MANIFEST
    items = read_manifest(manifest).items if manifest.is_file() else ()
    if any(planned.get(item.key) != item.identity for item in items):
        raise InputError(
            "the folder has clips of another command",
            remedy="choose another folder with --out, or omit it",
            file=folder,
        )


def _scores(
    project: _Project, generator: PipelineGenerator, reward: NoisedReward | None, made: ItemFolder, prompt: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the clips with their scores, and notes on missing rewards."""
    from vr_pipeline.generators.samples import latent_scores

    keys = made.keys
    files = [made.path(key) for key in keys]
    rows: list[dict[str, Any]] = [{"file": file.name} for file in files]
    notes = []
    if reward is None:
        notes.append("There is no latent reward, hence no such score (pipeline latent_reward_training makes one).")
    elif keys:
        table = latent_scores(generator, reward, [made.load(key) for key in keys], prompt)
        for row, scores in zip(rows, table.to_dict("records"), strict=True):
            row |= {f"latent {name}": float(value) for name, value in scores.items()}
    rewarded = _rewards(project, files, prompt) if keys else None
    if rewarded is None:
        notes.append("The environment has no reward_model, hence no reward of the finished clips.")
    else:
        for row, scores in zip(rows, rewarded.to_dict("records"), strict=True):
            named = {str(name): value for name, value in scores.items()}
            row |= {name.removeprefix("dim_"): float(named[name]) for name in named if name.startswith("dim_")}
            row |= {"total": float(named["total"])}
    records = made.records
    failed = records[records["status"] != "ok"]
    return [
        *rows,
        *({"file": key, "error": why} for key, why in zip(failed["key"], failed["error"], strict=True)),
    ], notes


def _rewards(project: _Project, files: Sequence[Path], prompt: str) -> pd.DataFrame | None:
    """Score clips by the environment's reward_model; None if it has none."""
    from vr_pipeline.rewards.named import RewardModelParameters

    named = RewardModelParameters.model_validate(project.parameters.get("reward_model", {"type": None}))
    if named.given is None:
        return None
    return named.model().score(list(files), [prompt] * len(files))


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    made = [row for row in rows if not row.get("error")]
    titles = list(dict.fromkeys(name for row in made for name in row)) or ["file"]
    lines = [(one_line(row["file"]), *(f"{row[name]:+.3f}" for name in titles[1:])) for row in made]
    echo("\n".join(aligned([titles, *lines], left={0})))
    for row in rows:
        if row.get("error"):
            echo(f"{one_line(row['file'])}  not made: {row['error']}")
