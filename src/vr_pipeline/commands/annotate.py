"""The command ``kedro annotate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from socket import socket

    from vr_pipeline.annotation.queue import Order
    from vr_pipeline.annotation.session import AnnotationSession

_USUAL_PORT = 8710
_MOST_LINKS = 20


@click.command(name="annotate")
@click.option("--env", "-e", default="base", show_default=True, help="Configuration: conf/<env> over conf/base.")
@click.option(
    "--source",
    type=click.Choice(["generated", "clips", "preferences"]),
    help="Pairs of clips that video_generation made, of given clips (preference_clips), or the pairs of "
    "human_preferences [default: generated, or clips where kedro init-data took clips without preferences].",
)
@click.option("--policies", metavar="A,B", help="Blind comparison of two policies' evaluation clips: original,mpo.")
@click.option("--study", metavar="NAME", help="Name of the study and its journal [default: the source or policies].")
@click.option("--annotator", metavar="NAME", help="The only annotator [default: each gives a name on the page].")
@click.option(
    "--dimensions",
    metavar="NAMES",
    help="Ask about these dimensions of the checklist first (a,b,c, or 'all'), then about the whole.",
)
@click.option(
    "--criteria",
    metavar="NAMES",
    help="Ask by these criteria of your own, too (visual,motion,text), before the whole.",
)
@click.option(
    "--order",
    type=click.Choice(["random", "informative"]),
    default="random",
    show_default=True,
    help="Round the prompts by chance, or the smallest predicted margin first.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of order and sides.")
@click.option("--pairs", default=200, show_default=True, type=click.IntRange(1), help="Pairs on offer.")
@click.option(
    "--pairs-per-prompt", default=40, show_default=True, type=click.IntRange(1), help="Pairs considered of a prompt."
)
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port [default: {_USUAL_PORT}, or a free one].")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Another name the server may be asked under; needed to listen on other than this machine's own address.",
)
@click.option("--report", is_flag=True, help="Print the figures of the study and leave.")
@click.option("--json", "as_json", is_flag=True, help="With --report: as one JSON document.")
@click.option(
    "--export",
    "export_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the answers as preferences.csv with the clips they are about, and leave.",
)
@click.option(
    "--raw-cells", is_flag=True, help="With --export: write texts that a spreadsheet would run as formulas unescaped."
)
def annotate(  # one parameter for each option of the command
    env: str,
    source: str | None,
    policies: str | None,
    study: str | None,
    annotator: str | None,
    dimensions: str | None,
    criteria: str | None,
    order: Order,
    seed: int,
    pairs: int,
    pairs_per_prompt: int,
    port: int | None,
    host: str,
    allow_host: tuple[str, ...],
    report: bool,
    as_json: bool,
    export_folder: Path | None,
    raw_cells: bool,
) -> None:
    """Compare clips in the browser, two of one prompt at a time; every answer is saved at once.

    The answers are a journal below data/01_raw/annotations, which weight_regression reads as human_preferences with
    format: annotations. See docs/annotation.md.
    """
    with plain_errors():
        from vr_pipeline.annotation.app import is_loopback
        from vr_pipeline.annotation.export import export_answers
        from vr_pipeline.annotation.offer import CLIPS, clip_files, journal_path, make_offer, make_study
        from vr_pipeline.annotation.store import Journal
        from vr_pipeline.errors import InputError
        from vr_pipeline.project.folder import project_context, project_folder

        project = project_folder()
        catalog = project_context(env).catalog
        about = make_study(study, source or _usual_source(catalog, project, env), policies)
        path = journal_path(project, env, about.study)
        if (report or export_folder is not None) and not path.exists():
            raise InputError("there is no such journal of annotations", remedy="run kedro annotate first", file=path)
        if report:
            _print_report(path, as_json=as_json)
            return
        if export_folder is not None:
            count = export_answers(path, clip_files(catalog, about), export_folder, raw=raw_cells)
            _tell_export(count, export_folder)
            return
        if not (is_loopback(host) or allow_host):
            raise InputError(
                f"listening on '{host}' would let other machines in",
                remedy="leave --host out, or say under which name they may ask with --allow-host NAME",
                field="--host",
            )
        offer = make_offer(
            catalog,
            about,
            dimensions=dimensions,
            criteria=criteria,
            order=order,
            seed=seed,
            pairs=pairs,
            per_prompt=pairs_per_prompt,
        )
        if about.source == CLIPS:
            echo(f"Afterwards: kedro run --env={env} --to-outputs=reward_agreement learns weights from the answers")
        journal = Journal(path, about)
        try:
            session = offer.session(about, journal, order=order, seed=seed, annotator=annotator)
            _serve(session, host=host, port=port, allow_host=allow_host)
        finally:
            journal.close()


def _usual_source(catalog: Any, project: Path, env: str) -> str:
    """Given clips where the catalog waits for what people say of them, clips of the generator otherwise."""
    from vr_pipeline.annotation.offer import CLIPS, journal_path
    from vr_pipeline.project.places import stored_at

    answers = stored_at(catalog, "human_preferences")
    awaited = answers is not None and answers.resolve() == journal_path(project, env, CLIPS).resolve()
    return CLIPS if awaited else "generated"


def _serve(session: AnnotationSession, *, host: str, port: int | None, allow_host: tuple[str, ...]) -> None:
    import secrets

    import uvicorn

    from vr_pipeline.annotation.app import create_app, is_loopback, known_hosts, personal_link

    listener = _listen(host, port)
    actual = int(listener.getsockname()[1])
    key = None if is_loopback(host) else secrets.token_urlsafe(16)
    app = create_app(session, hosts=known_hosts(host, actual, allow_host), key=key)
    name = (
        allow_host[0] if allow_host else ("localhost" if host == "localhost" else f"[{host}]" if ":" in host else host)
    )
    address = f"http://{name}:{actual}/" + (f"?key={key}" if key else "")
    prompts = len({pair.prompt_id for pair in session.pairs})
    echo(f"{session.study.study}: {len(session.pairs)} pairs of {prompts} prompts, {session.order} order")
    echo(f"Every answer is saved at once in {session.journal.path}")
    echo(f"Open {address} (Ctrl-C ends)")
    returning = session.annotators() if session.annotator is None else [session.annotator]
    for person in returning[:_MOST_LINKS]:
        link = f"http://{name}:{actual}/{personal_link(session, person)}" + (f"&key={key}" if key else "")
        echo(f"Personal link of {person}: {link}")
    if len(returning) > _MOST_LINKS:
        echo(f"{len(returning) - _MOST_LINKS} more have answered; --annotator NAME prints the link of one")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, limit_concurrency=100)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])


def _listen(host: str, port: int | None) -> socket:
    """Return a socket on the port, or on the usual one, or on any free one."""
    import socket

    from vr_pipeline.errors import InputError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port,) if port is not None else (_USUAL_PORT, 0):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
            return listener
        except OSError as error:
            listener.close()
            problem = error
    raise InputError(
        f"cannot listen on {host}, port {port} ({problem.strerror})",
        remedy="choose another port, or leave --port out",
        field="--port",
    )


def _print_report(path: Path, *, as_json: bool) -> None:
    from vr_pipeline.annotation.agreement import report_lines, study_results
    from vr_pipeline.preferences.journal import read_labels, read_study

    labels = read_labels(path)
    criteria = list(dict.fromkeys(label.criterion for label in labels))
    results = study_results(read_study(path), labels, criteria)
    echo(json.dumps(results, indent=2) if as_json else "\n".join(report_lines(results)))


def _tell_export(count: dict[str, Any], folder: Path) -> None:
    echo(f"{count['answers']} answers about {count['clips']} clips are in {folder}.")
    for reason in count["missing"]:
        echo(f"Note: {reason}", fg="yellow", err=True)
    echo("To use them:")
    echo(f"  kedro init-data --env annotated --videos {folder / 'clips'} --preferences {folder / 'preferences.csv'}")
