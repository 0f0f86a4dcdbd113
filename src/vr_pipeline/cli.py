"""Commands of the project, beside and instead of Kedro's own."""

import functools
import logging
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from vr_pipeline.runtime.environment import (
    colours_wanted,
    overrule,
    prepare_environment,
    quieten_progress_of_libraries,
)
from vr_pipeline.runtime.start import starting
from vr_pipeline.runtime.surroundings import working_directory_is_there
from vr_pipeline.terminal import clean_logs, echo, guard_messages

prepare_environment()
quieten_progress_of_libraries()

from kedro.framework.cli.project import run as kedro_run  # noqa: E402

from vr_pipeline.commands.annotate import annotate  # noqa: E402
from vr_pipeline.commands.import_reward import import_reward  # noqa: E402
from vr_pipeline.commands.init_data import init_data  # noqa: E402
from vr_pipeline.commands.join import join  # noqa: E402
from vr_pipeline.commands.judge import ask, compare, score  # noqa: E402
from vr_pipeline.commands.lineage import lineage  # noqa: E402
from vr_pipeline.commands.options import MACHINE  # noqa: E402
from vr_pipeline.commands.plan import plan  # noqa: E402
from vr_pipeline.commands.probe import probe  # noqa: E402
from vr_pipeline.commands.results import results  # noqa: E402
from vr_pipeline.commands.sample import sample  # noqa: E402
from vr_pipeline.commands.serve import serve  # noqa: E402
from vr_pipeline.commands.suites import export_clips, import_scores  # noqa: E402
from vr_pipeline.commands.verify import verify  # noqa: E402

logger = logging.getLogger(__name__)
clean_logs()

DEFAULT_RUNNER = "vr_pipeline.runners.DeviceRunner"
_INTERRUPTED = 130
_MODULE = "python -m "


class ProjectGroup(click.Group):
    """Commands without colours where NO_COLOR is set (off a terminal there are none), whose errors control nothing."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        if not colours_wanted():
            cmd.context_settings = {**cmd.context_settings, "color": False}
        if cmd.callback is not None:
            cmd.callback = _overruling(cmd.callback)
        guard_messages(cmd)
        super().add_command(cmd, name)


def _overruling(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that it first reports ignored environment variables."""

    @functools.wraps(callback)
    def command(*arguments: Any, **options: Any) -> Any:
        for sentence in overrule():
            echo(sentence, err=True)
        return callback(*arguments, **options)

    return command


@click.group(name="kedro", cls=ProjectGroup)
def cli() -> None:
    """Commands of vr_pipeline."""


for _command in (
    score,
    compare,
    ask,
    lineage,
    annotate,
    init_data,
    import_reward,
    join,
    results,
    plan,
    probe,
    sample,
    serve,
    export_clips,
    import_scores,
    verify,
):
    cli.add_command(_command)


@cli.command(
    name="run",
    params=[
        *kedro_run.params,
        MACHINE,
        click.Option(["--retrain"], is_flag=True, help="Train again even if the same training's result is stored."),
        click.Option(["--verbose", "-v"], is_flag=True, help="Show tracebacks of errors."),
    ],
)
def run(verbose: bool, retrain: bool, **options: Any) -> None:
    """Run a pipeline.

    Without --runner, conf/<env>/runner.yml determines where nodes run, overridden by
    conf/machines/<machine>.yml; --runner-params changes single settings.
    """
    if options["pipeline"] and options["pipelines"]:
        raise click.UsageError("Options '--pipeline' and '--pipelines' cannot be used together.")
    if options["pipeline"]:
        options["pipelines"], options["pipeline"] = [options["pipeline"]], None
    if retrain:
        trainings = {"judge_training": ["judge_training"], "judge_mpo": ["judge_training", "dpo_training"]}
        for name in options["pipelines"] or ["__default__"]:
            for block in trainings.get(name, ["dpo_training"]):
                options["params"].setdefault(block, {})["retrain"] = True
    options["runner"] = options["runner"] or DEFAULT_RUNNER
    _check_runner(options["runner"])
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with starting():
            kedro_run.callback(**options)
    except click.ClickException:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error is reported, none is swallowed
        _exit(_report(error, verbose=verbose))
    _exit(0)


@cli.command(name="graph")
@click.option("--build", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write a static page there.")
@click.option("--env", "-e", default=None, help="Environment of the configuration.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4141, show_default=True, help="Port to listen on.")
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
def graph(folder: Path | None, env: str | None, host: str, port: int, no_browser: bool) -> None:
    """Show the pipelines and their data in the browser.

    This is Kedro-Viz; the first view shows one box per pipeline and the data between them.
    """
    from vr_pipeline.project.folder import project_folder
    from vr_pipeline.viz import serve as picture

    if folder is None:
        picture.serve(project_folder(), environment=env, host=host, port=port, open_browser=not no_browser)
        return
    picture.build(project_folder(), folder, environment=env)
    echo(f"{folder}/index.html: serve the folder, for example by python -m http.server --directory {folder}")


def _check_runner(name: str) -> None:
    """Reject an unknown runner; Kedro would show a traceback."""
    from kedro.utils import load_obj

    try:
        load_obj(name, "kedro.runner")
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(
            f"there is no runner '{name}'. Omit --runner: conf/<env>/runner.yml determines where nodes run.",
            param_hint="--runner",
        ) from error


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Treat SIGTERM, with which schedulers end jobs, as Ctrl-C."""
    raise KeyboardInterrupt


def _exit(code: int) -> None:
    """Exit; at once if an uninterruptible call of the tracking store hangs."""
    from vr_pipeline.lineage.gateway import hanging

    if hanging():
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def _report(error: BaseException, *, verbose: bool) -> int:
    """Print what failed and how to resume; return the exit code."""
    from vr_pipeline.project.explain import causes, explain
    from vr_pipeline.runners.device_runner import RESUME_FROM

    account = explain(error)
    logger.debug("The run failed", exc_info=error)
    log = _log_file()
    if isinstance(error, KeyboardInterrupt):
        account = "The run was stopped."
    # Errors of the program itself are for its developers: in the log, or here if there is none yet.
    if verbose or (account is None and log is None):
        echo("".join(traceback.format_exception(error)), err=True)
    elif account is None:
        account = (
            f"The run failed: {type(error).__name__}: {error}\nThis looks like an error of the program. "
            f"{_from_here(Path(log or ''))} has the traceback; --verbose shows it here."
        )
    echo(account or f"The run failed: {type(error).__name__}: {error}", fg="red", err=True)
    resume_from = next((getattr(link, RESUME_FROM) for link in causes(error) if hasattr(link, RESUME_FROM)), None)
    if resume_from is not None:
        echo(f"To resume where it stopped: {resume_command(sys.argv, resume_from)}", err=True)
    interrupted = any(isinstance(link, KeyboardInterrupt) for link in causes(error))
    return _INTERRUPTED if interrupted else 1


def _log_file() -> str | None:
    """Return the log file of all messages, once logging is set up."""
    handlers = logging.getLogger("vr_pipeline").handlers
    return next((handler.baseFilename for handler in handlers if isinstance(handler, logging.FileHandler)), None)


def resume_command(arguments: Sequence[str], nodes: Sequence[str]) -> str:
    """Return the typed command line, starting at ``nodes`` (at the same nodes as before if there are none).

    Args:
        arguments: the command and its arguments, as in ``sys.argv``.
        nodes: names of nodes.
    """
    program, *typed = arguments
    on_path = shutil.which("kedro")
    same = on_path and Path(on_path).resolve() == Path(program).resolve()
    command = ["kedro"] if same else _as_typed(program)
    if not nodes:
        return shlex.join([*command, *typed])
    kept, skip = [], False
    for argument in typed:
        if skip:
            skip = False
        elif argument == "--from-nodes":
            skip = True
        elif not argument.startswith("--from-nodes="):
            kept.append(argument)
    return shlex.join([*command, *kept, f"--from-nodes={','.join(nodes)}"])


def _as_typed(program: str) -> list[str]:
    """Return the words of a program, relative to the working directory if it lies below.

    Python gives a module's file as the program, and Kedro names itself 'python -m kedro'; either way the interpreter
    is the one that is running.
    """
    path = Path(program)
    module = program.removeprefix(_MODULE) if program.startswith(_MODULE) else path.parent.name
    if path.name != "__main__.py" and not program.startswith(_MODULE):
        return [_from_here(path)]
    running, found = Path(sys.executable), shutil.which("python")
    # A bare 'python' may be another one, without this project.
    same = found is not None and Path(found).parent == running.parent
    return ["python" if same else _from_here(running), "-m", module]


def _from_here(path: Path) -> str:
    if not working_directory_is_there():
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else str(path)
