"""The command ``kedro annotate``."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.commands.options import ENVIRONMENT, print_notes
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from vr_pipeline.annotation.people import OpenStudy
    from vr_pipeline.annotation.queue import Order
    from vr_pipeline.checklist import Checklist

_USUAL_PORT = 8710
_MOST_LINKS = 20


@click.command(name="annotate")
@ENVIRONMENT
@click.option(
    "--source",
    type=click.Choice(["generated", "clips", "generators", "preferences"]),
    help="Pairs of clips of video_generation, of your own clips (preference_clips), of two generators, or the pairs of "
    "human_preferences [default: generated, or the source whose answers human_preferences reads].",
)
@click.option("--policies", metavar="A,B", help="Blind comparison of two policies' evaluation clips: original,mpo.")
@click.option("--study", metavar="NAME", help="Name of the study and its journal [default: the source or policies].")
@click.option("--annotator", metavar="NAME", help="The only annotator [default: each gives a name on the page].")
@click.option(
    "--dimensions",
    metavar="NAMES",
    help="Ask about these dimensions of the checklist first (a,b,c, or 'all'), then overall.",
)
@click.option(
    "--criteria",
    metavar="NAMES",
    help="Also ask about these criteria of your own (visual,motion,text), before the overall question.",
)
@click.option(
    "--checklist",
    "graded",
    is_flag=True,
    help="Grade one clip at a time in the sub-dimensions of the environment's checklist.",
)
@click.option(
    "--guide",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --checklist: options with examples, training and checks [default: conf/checklists/guides/<name>.yml].",
)
@click.option("--clips", type=click.IntRange(1), help="With --checklist: clips to grade [default: all].")
@click.option(
    "--order",
    type=click.Choice(["random", "informative", "active", "disagreement"]),
    default="random",
    show_default=True,
    help="Random order, one pair of each prompt in turn; the smallest predicted margin first; the pairs whose answers "
    "the weights need most; or those on which rewards disagree most.",
)
@click.option(
    "--rewards",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="With --order disagreement: table of video_id and total by another reward; repeat it for several.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of order and sides.")
@click.option("--pairs", default=200, show_default=True, type=click.IntRange(1), help="Number of pairs to offer.")
@click.option(
    "--pairs-per-prompt", default=40, show_default=True, type=click.IntRange(1), help="Pairs considered per prompt."
)
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port [default: {_USUAL_PORT}, or a free one].")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Further host name that requests may use; required to listen on an address that other machines reach.",
)
@click.option("--report", is_flag=True, help="Print the figures of the study and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --report: as one JSON document.")
@click.option(
    "--export",
    "export_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the answers as preferences.csv with the clips they are about, and exit.",
)
@click.option(
    "--raw-cells", is_flag=True, help="With --export: do not escape texts that a spreadsheet would run as formulas."
)
def annotate(
    env: str, guide: Path | None, host: str, port: int | None, allow_host: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Compare clips in the browser, or grade them.

    The page shows two clips of one prompt at a time, or one clip to grade. Every answer is saved immediately.

    Answers go to a journal in data/01_raw/annotations: weight_regression reads it as human_preferences with format:
    annotations, judge_training reads grades as judge_annotations. See docs/annotation.md.
    """
    with plain_errors():
        from vr_pipeline.annotation.choice import Selection
        from vr_pipeline.annotation.export import export_answers
        from vr_pipeline.annotation.offer import (
            CLIPS,
            GENERATORS,
            clip_files,
            journal_path,
            make_grading,
            make_offer,
            make_study,
            usual_guide,
        )
        from vr_pipeline.annotation.store import Journal
        from vr_pipeline.errors import InputError
        from vr_pipeline.preferences.journal import Grade, Label, read_labels
        from vr_pipeline.project.folder import project_context, project_folder
        from vr_pipeline.runtime.web import is_loopback

        project = project_folder()
        catalog = project_context(env).catalog
        checklist = catalog.load("checklist") if given["graded"] else None
        if guide is None and checklist is not None:
            guide = usual_guide(project, checklist)
        source = given["source"] or _usual_source(catalog, project, env)
        about = make_study(given["study"], source, given["policies"], checklist)
        path = journal_path(project, env, about.study)
        if (given["report"] or given["export_folder"]) and not path.exists():
            raise InputError("the study has no journal yet", remedy="run kedro annotate first", file=path)
        if given["report"]:
            if checklist is not None:
                _print_grades(path, checklist, guide, as_json=as_json)
            else:
                _print_report(path, as_json=as_json)
            return
        if (folder := given["export_folder"]) is not None:
            _print_export(export_answers(path, clip_files(catalog, about), folder, raw=given["raw_cells"]), folder)
            return
        if not (is_loopback(host) or allow_host):
            raise InputError(
                f"on '{host}' other machines could connect",
                remedy="omit --host, or name the host that they may use with --allow-host NAME",
                field="--host",
            )
        seed, annotator = given["seed"], given["annotator"]
        if checklist is not None:
            opened = make_grading(catalog, about, checklist, guide, seed=seed, limit=given["clips"])
            with closing(Journal[Grade](path, about)) as grades:
                _serve(opened(grades, annotator), host=host, port=port, allow_host=allow_host)
            return
        order: Order = given["order"]
        asked = tuple(dict.fromkeys(label.pair for label in read_labels(path))) if path.exists() else ()
        selection = Selection(order, seed, given["pairs"], given["pairs_per_prompt"], given["rewards"], asked)
        offer = make_offer(catalog, about, selection, dimensions=given["dimensions"], criteria=given["criteria"])
        if about.source in (CLIPS, GENERATORS):
            echo(f"Then: kedro run --env={env} --to-outputs=reward_agreement (fits weights to the answers)")
        with closing(Journal[Label](path, about)) as labels:
            session = offer.session(about, labels, order=order, seed=seed, annotator=annotator)
            _serve(session, host=host, port=port, allow_host=allow_host)


def _usual_source(catalog: Any, project: Path, env: str) -> str:
    """Return the source whose journal human_preferences reads, by default the generator's clips."""
    from vr_pipeline.annotation.offer import CLIPS, GENERATORS, journal_path
    from vr_pipeline.project.places import stored_at

    answers = stored_at(catalog, "human_preferences")
    place = None if answers is None else answers.resolve()
    awaited = [name for name in (CLIPS, GENERATORS) if place == journal_path(project, env, name).resolve()]
    return awaited[0] if awaited else "generated"


def _serve(session: OpenStudy, *, host: str, port: int | None, allow_host: tuple[str, ...]) -> None:
    import secrets

    import uvicorn

    from vr_pipeline.annotation.app import create_app, personal_link
    from vr_pipeline.runtime.web import address_of, is_loopback, known_hosts, listen

    listener = listen(host, *((port,) if port is not None else (_USUAL_PORT, 0)))
    actual = int(listener.getsockname()[1])
    key = None if is_loopback(host) else secrets.token_urlsafe(16)
    app = create_app(session, hosts=known_hosts(host, actual, allow_host), key=key)
    place = address_of(allow_host[0] if allow_host else host, actual)
    address = f"{place}/" + (f"?key={key}" if key else "")
    echo(f"{session.study.study}: {session.headline()}")
    echo(f"Every answer is saved at once in {session.journal.path}")
    echo(f"Open {address} (Ctrl-C ends)")
    returning = session.annotators() if session.annotator is None else [session.annotator]
    for person in returning[:_MOST_LINKS]:
        link = f"{place}/{personal_link(session, person)}" + (f"&key={key}" if key else "")
        echo(f"Personal link of {person}: {link}")
    if len(returning) > _MOST_LINKS:
        echo(f"{len(returning) - _MOST_LINKS} more have answered; --annotator NAME prints the link of one")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, limit_concurrency=100)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])


def _print_report(path: Path, *, as_json: bool) -> None:
    from vr_pipeline.annotation.agreement import report_lines, study_results
    from vr_pipeline.preferences.journal import read_labels, read_study

    labels = read_labels(path)
    criteria = list(dict.fromkeys(label.criterion for label in labels))
    results = study_results(read_study(path), labels, criteria)
    echo(json.dumps(results, indent=2) if as_json else "\n".join(report_lines(results)))


def _print_grades(path: Path, checklist: Checklist, guide: Path | None, *, as_json: bool) -> None:
    from vr_pipeline.annotation.grade_figures import grade_report_lines, grade_results
    from vr_pipeline.annotation.guide import grades_key, load_guide
    from vr_pipeline.errors import InputError
    from vr_pipeline.preferences.journal import read_grades, read_study

    study = read_study(path)
    grades = read_grades(path)
    if study.checklist != grades_key(checklist):
        raise InputError(
            f"the journal grades by {study.checklist}, but the environment's checklist is {grades_key(checklist)}",
            remedy="use --env with the environment whose checklist was graded",
            file=path,
        )
    results = grade_results(study, grades, checklist, load_guide(guide, checklist)[0])
    echo(json.dumps(results, indent=2) if as_json else "\n".join(grade_report_lines(results)))


def _print_export(count: dict[str, Any], folder: Path) -> None:
    echo(f"{count['answers']} answers about {count['clips']} clips are in {folder}.")
    print_notes(count["missing"])
    echo("To use them:")
    echo(f"  kedro init-data --env annotated --videos {folder / 'clips'} --preferences {folder / 'preferences.csv'}")
