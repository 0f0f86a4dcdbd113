"""The command ``kedro serve``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from vr_pipeline.commands.judge import RewardOptions, load_tools, reward_options
from vr_pipeline.commands.options import ENVIRONMENT, print_notes
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.runtime.setting_names import setting_trouble
from vr_pipeline.serving.limits import ServingLimits
from vr_pipeline.terminal import echo

TOKEN = "VR_PIPELINE_TOKEN"
"""Environment variable with the token of requests; a command line would show it to other users."""


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each limit; the command receives them as one object."""

    @functools.wraps(command)
    def with_limits(**given: Any) -> None:
        try:
            limits = ServingLimits.model_validate({name: given.pop(name) for name in ServingLimits.model_fields})
        except ValidationError as error:
            name, problem = setting_trouble(error, ServingLimits)
            raise click.BadParameter(problem, param_hint=f"--{name.replace('_', '-')}") from error
        command(limits=limits, **given)

    wrapped = with_limits
    for name, field in reversed(ServingLimits.model_fields.items()):
        wrapped = click.option(
            f"--{name.replace('_', '-')}",
            default=field.default,
            show_default=True,
            type=type(field.default),
            help=field.description,
        )(wrapped)
    return wrapped


@click.command(name="serve")
@ENVIRONMENT
@reward_options
@click.option(
    "--clips",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose files a request may name as 'path'; without it, requests must contain the clips.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; any other needs a token.")
@click.option("--port", default=8711, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@_limit_options
def serve(env: str, folder: Path | None, host: str, port: int, options: RewardOptions, limits: ServingLimits) -> None:
    """Serve a reward to other programs: JSON over HTTP. See docs/serving.md.

    POST /score and /compare take clips in base64, or by name in --clips; GET /health and /metrics report the state.
    The reward is the environment's, as for kedro score, or the named one. The variable VR_PIPELINE_TOKEN sets the
    token; without it, one is generated if other machines can reach the address.
    """
    with plain_errors():
        import secrets

        from vr_pipeline.runtime.web import address_of, is_loopback, known_hosts, listen
        from vr_pipeline.serving.app import create_app
        from vr_pipeline.serving.service import RewardService
        from vr_pipeline.video.limits import reading, use_settings

        listener = listen(host, port)
        actual = int(listener.getsockname()[1])
        tools = load_tools(options, env)
        use_settings(limits.reading(reading().model_dump()))
        service = RewardService(tools.model, folder, notes=tools.notes, public=tools.public)
        token = os.environ.get(TOKEN) or (None if is_loopback(host) else secrets.token_urlsafe(24))
        # With a token, no foreign page can send requests, under any host name.
        hosts = known_hosts(host, actual) if token is None else frozenset()
        app = create_app(service, limits, hosts=hosts, token=token)
        print_notes(tools.notes)
        if token is not None and TOKEN not in os.environ:
            echo(f"Token: {token}")
        echo(f"Serving {service.about['reward']} at {address_of(host, actual)} (Ctrl-C ends)")
        _run(app, listener, limits)
        echo("Every request was answered.")


def _run(app: Any, listener: Any, limits: ServingLimits) -> None:
    """Serve until Ctrl-C or SIGTERM, then answer the requests in progress."""
    import signal

    import uvicorn

    # uvicorn exits on these signals and passes them on to the previous handlers.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ends_within = int(2 * limits.timeout) + 1
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=ends_within
        )
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
