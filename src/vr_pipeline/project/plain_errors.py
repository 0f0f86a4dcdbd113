"""Errors of commands as plain messages."""

import logging

import click

from vr_pipeline.terminal import visible


class plain_errors:
    """Shows errors that a user can fix as one message without a traceback."""

    def __enter__(self) -> None:
        # What commands print is their result: frameworks keep quiet unless something is wrong.
        logging.disable(logging.INFO)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        logging.disable(logging.NOTSET)
        if isinstance(error, Exception) and not isinstance(error, click.ClickException | click.Abort):
            from vr_pipeline.project.explain import explain

            account = explain(error)
            if account is not None:
                raise click.ClickException(visible(account)) from error
