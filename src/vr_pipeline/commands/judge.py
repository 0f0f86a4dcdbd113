"""Commands on single files: ``kedro score``, ``kedro compare`` and ``kedro ask``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vr_pipeline.commands import scored as scored_files
from vr_pipeline.commands.options import AS_JSON, ENVIRONMENT, EXISTING_FILE, print_json, print_notes
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo, one_line

if TYPE_CHECKING:
    from vr_pipeline.rewards.checklist.scoring import ScoredFile
    from vr_pipeline.rewards.contract import RewardModel


class RewardOptions(NamedTuple):
    """The options that choose a reward."""

    reward_path: Path | None
    weights_path: Path | None
    checklist_path: Path | None


def reward_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose a reward; the command receives them as one object."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        command(options=RewardOptions(*(given.pop(name) for name in RewardOptions._fields)), **given)

    wrapped = with_options
    for option in (
        click.option(
            "--reward",
            "reward_path",
            type=click.Path(exists=True, path_type=Path),
            help="Another reward: the folder of a packaged reward model, or a YAML file that describes one.",
        ),
        click.option(
            "--weights",
            "weights_path",
            type=EXISTING_FILE,
            help="Reward weights (JSON) instead of the catalog's; VisionReward's with its question list.",
        ),
        click.option(
            "--checklist",
            "checklist_path",
            type=EXISTING_FILE,
            help="Checklist (YAML, or VisionReward's .txt) instead of the catalog's.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


_top_option = click.option("--top", default=5, show_default=True, type=click.IntRange(0), help="Questions to show.")


@click.command(name="score")
@click.argument("files", nargs=-1, required=True)
@click.option("--prompt", "-p", required=True, help="The prompt of the videos or images.")
@_top_option
@reward_options
@ENVIRONMENT
@AS_JSON
def score(files: tuple[str, ...], prompt: str, env: str, as_json: bool, top: int, options: RewardOptions) -> None:
    """Show the reward of videos or images.

    Shows it by dimension and question. FILES are paths, patterns or folders.
    """
    with plain_errors():
        paths, failed = _find(files)
        tools = load_tools(options, env)
        _check_prompt(tools, prompt)
        notes = tools.notes
        scored, unreadable = _score_all(tools, paths, prompt)
        failed |= unreadable
        if as_json:
            found = [one.to_json() for one in scored]
            print_json({"prompt": prompt, "notes": notes, "files": found, "failed": failed})
        else:
            _print_notes(notes, failed)
            if scored:
                scored_files.print_table(scored)
            for one in scored:
                scored_files.print_movers(one, tools.model, top, prompt)
    _exit(failed)


@click.command(name="compare")
@click.argument("first")
@click.argument("second")
@click.option("--prompt", "-p", required=True, help="The prompt of both.")
@_top_option
@reward_options
@ENVIRONMENT
@AS_JSON
def compare(first: str, second: str, prompt: str, env: str, as_json: bool, top: int, options: RewardOptions) -> None:
    """Show which of two videos or images is better, and why.

    Shows the questions that decide it.
    """
    with plain_errors():
        from vr_pipeline.rewards.checklist.scoring import differences

        tools = load_tools(options, env)
        _check_prompt(tools, prompt)
        notes = tools.notes
        scored, failed = _score_all(tools, [Path(first), Path(second)], prompt)
        if len(scored) == 2:
            a, b = scored
            gap = a.total - b.total
            chances = scored_files.probabilities(tools.model, a.path, b.path, prompt)
            better = chances["better"] if chances else "first" if gap > 1e-9 else "second" if gap < -1e-9 else "tie"
            rows = differences(a, b, top)
            if as_json:
                document = {"prompt": prompt, "notes": notes, "better": better, "difference": gap}
                document |= {
                    "dominates": scored_files.dominates(a, b) or scored_files.dominates(b, a),
                    "questions": dict(rows),
                    **({"probabilities": chances} if chances else {}),
                    "files": [one.to_json() for one in scored],
                }
                print_json(document)
            else:
                _print_notes(notes, failed)
                scored_files.print_table(scored)
                words = {"first": f"{a.path} is better", "second": f"{b.path} is better", "tie": "Neither is better"}
                # If comparison and scores disagree, the scores are no measure of the difference.
                agree = better == ("first" if gap > 0 else "second")
                every = scored_files.how_much_better(a, b) if agree else ""
                most = " Questions that differ most:" if rows else ""
                echo(f"\n{words[better]}{every} (difference {gap:+.4f}).{most}")
                for question, moved in rows:
                    text = scored_files.question_text(tools.model, question, prompt)
                    echo(f"  {moved:+.4f}  {text}  ({a.p_yes[question]:.2f} against {b.p_yes[question]:.2f})")
                if chances:
                    scored_files.print_probabilities(chances)
        elif as_json:
            print_json({"prompt": prompt, "notes": notes, "failed": failed})
        else:
            _print_notes(notes, failed)
    _exit(failed)


@click.command(name="ask")
@click.argument("files", nargs=-1, required=True)
@click.argument("question")
@click.option("--prompt", "-p", default="", help="Replaces [[prompt]] in the question.")
@ENVIRONMENT
@AS_JSON
def ask(files: tuple[str, ...], question: str, prompt: str, env: str, as_json: bool) -> None:
    """Ask the judge one yes/no QUESTION about videos or images.

    FILES are paths, patterns or folders.
    """
    with plain_errors():
        from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
        from vr_pipeline.errors import InputError
        from vr_pipeline.judges import load_judge
        from vr_pipeline.rewards.checklist.scoring import ask_file

        if not question.strip():
            raise click.UsageError("The question is empty.")
        if os.path.exists(question):
            raise click.UsageError(f"The last argument must be the question, but '{question}' is a file.")
        if PROMPT_PLACEHOLDER in question and not prompt.strip():
            raise click.UsageError("The question contains [[prompt]]: give the prompt with --prompt.")
        paths, failed = _find(files)
        judge = load_judge(_context(env).params["judge"])
        notes = _notes_on(judge)
        rows: list[dict[str, Any]] = []
        for path in paths:
            try:
                p_yes, outside, frames = ask_file(judge, path, question, prompt)
            except InputError as error:
                failed[str(path)] = str(error)
                continue
            rows.append({"path": str(path), "p_yes": p_yes, "answer": "yes" if p_yes > 0.5 else "no"})
            rows[-1] |= {"outside_mass": outside, "frames": frames}
        if as_json:
            print_json({"question": question, "notes": notes, "files": rows, "failed": failed})
        else:
            _print_notes(notes, failed)
            for row in rows:
                unsure = "  (the judge mostly answers neither yes nor no)" if row["outside_mass"] > 0.5 else ""
                echo(f"{row['answer']:<4} {row['p_yes']:.3f}  {one_line(row['path'])}{unsure}")
    _exit(failed)


def _exit(failed: dict[str, str]) -> None:
    if failed:
        raise click.exceptions.Exit(1)


def _find(files: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Return the named files, and errors by name; stop if no name has a file."""
    from vr_pipeline.video.find import find_media
    from vr_pipeline.video.read import VideoReadError

    found: dict[Path, None] = {}
    failed = {}
    for name in files:
        try:
            found |= dict.fromkeys(find_media([name]))
        except VideoReadError as error:
            failed[name] = str(error)
    if not found:
        raise click.ClickException("\n".join(failed.values()))
    return list(found), failed


def _context(env: str) -> Any:
    from vr_pipeline.project.folder import project_context

    return project_context(env)


def _notes_on(judge: Any) -> list[str]:
    """Return notes for the user of a judge."""
    world = getattr(judge, "world", None)
    note = f"This is the demo judge: it knows only {world}; its answers about anything else are meaningless."
    return [note] if world else []


class Tools(NamedTuple):
    """A reward for files, with notes for its user."""

    model: RewardModel
    notes: list[str]
    public: bool = False
    """Whether the weights are VisionReward's published ones."""


def load_tools(options: RewardOptions, env: str) -> Tools:
    """Load the chosen reward: by its file or folder, else that of the environment's system."""
    from vr_pipeline.rewards.checklist.model import ChecklistReward
    from vr_pipeline.rewards.registry import load_reward_model

    of_checklist = options.weights_path or options.checklist_path
    if options.reward_path is None:
        context = _context(env)
        own = None if of_checklist else _own_reward(context)
        tools = _checklist_tools(options, context) if own is None else Tools(own, [])
    elif of_checklist:
        raise click.UsageError("--reward names a complete reward: omit --weights and --checklist.")
    else:
        tools = Tools(load_reward_model(options.reward_path), [])
    if isinstance(tools.model, ChecklistReward):
        tools.notes[:0] = _notes_on(tools.model.loaded()[0])
    else:
        # The vision-language model of a VideoReward declares its world, as a judge does.
        tools.notes[:0] = _notes_on(getattr(getattr(tools.model.loaded(), "family", None), "settings", None))
    return tools


def _check_prompt(tools: Tools, prompt: str) -> None:
    from vr_pipeline.rewards.checklist.scoring import question_about_prompt

    question = question_about_prompt(tools.model)
    if question is not None and not prompt.strip():
        raise click.UsageError(f"The prompt is empty, but question '{question}' asks about it.")


def _own_reward(context: Any) -> RewardModel | None:
    """Return the reward of an environment whose system has no checklist; None for others."""
    from vr_pipeline.pipelines.systems import MPO_DPO, SYSTEMS
    from vr_pipeline.project.configuration import section
    from vr_pipeline.rewards.named import RewardModelParameters

    loader = getattr(context, "config_loader", None)
    own = section(loader, "globals").get("pipeline", MPO_DPO.name) if loader is not None else MPO_DPO.name
    block = next((one.reward_block for one in SYSTEMS if one.name == own and one.reward != "checklist"), None)
    return None if block is None else RewardModelParameters.model_validate(context.params[block]).model()


def _checklist_tools(options: RewardOptions, context: Any) -> Tools:
    from vr_pipeline.checklist import load_checklist
    from vr_pipeline.judges.config import ChecklistInferenceParameters
    from vr_pipeline.rewards.checklist.model import ChecklistReward
    from vr_pipeline.rewards.checklist.visionreward import read_visionreward
    from vr_pipeline.rewards.checklist.weights import RewardWeights, equal_weights, read_weights
    from vr_pipeline.vlm.config import JudgeParameters

    checklist_path, weights_path = options.checklist_path, options.weights_path
    parameters = ChecklistInferenceParameters.model_validate(context.params["checklist_inference"])
    published, notes = None, []
    if weights_path and checklist_path and checklist_path.suffix.lower() == ".txt":
        checklist, published = read_visionreward(checklist_path, weights_path)
    else:
        checklist = load_checklist(checklist_path) if checklist_path else context.catalog.load("checklist")
    if published is not None:
        weights = published
        notes.append(
            f"visionreward_score is the mean of the {len(weights.question_ids)} weighted answers, as in VisionReward. "
            "The total is their sum, and also the sum of the dimensions."
        )
    elif weights_path is not None:
        weights = read_weights(weights_path)
    elif checklist_path is None and context.catalog.exists("reward_weights"):
        weights = RewardWeights.from_json(context.catalog.load("reward_weights"))
    else:
        weights = equal_weights(checklist)
        notes.append("There are no fitted weights: every question has the same weight ('kedro run' fits weights).")
    # A checklist of the command line may lack the question that another source answers, or that has a fault.
    judging = parameters.model_copy(update={"alignment": None, "faults": None}) if checklist_path else parameters
    model = ChecklistReward(checklist, weights, JudgeParameters.model_validate(context.params["judge"]), judging)
    return Tools(model, notes, published is not None)


def _score_all(tools: Tools, paths: Sequence[Path], prompt: str) -> tuple[list[ScoredFile], dict[str, str]]:
    from vr_pipeline.errors import InputError
    from vr_pipeline.rewards.checklist.model import ChecklistReward
    from vr_pipeline.rewards.checklist.scoring import plain_score, score_file

    model, scored, failed = tools.model, [], {}
    for path in paths:
        try:
            if isinstance(model, ChecklistReward):
                one = score_file(model, path, prompt)
            else:
                one = plain_score(model, path, prompt)
        except InputError as error:
            failed[str(path)] = str(error)
            continue
        if tools.public:
            one = replace(one, visionreward_score=one.total / len(one.contributions))
        if one.extra.get("outside_training"):
            tools.notes.append(f"{path}: unlike the reward's training clips, so its score is less reliable.")
        if one.outside_mass > 0.5:
            tools.notes.append(f"{path}: the judge mostly answers neither yes nor no; the score is unreliable.")
        scored.append(one)
    return scored, failed


def _print_notes(notes: Sequence[str], failed: dict[str, str]) -> None:
    print_notes(notes)
    for message in failed.values():
        echo(f"Error: {message}", fg="red", err=True)
