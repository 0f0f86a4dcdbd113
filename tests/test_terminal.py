"""Text from elsewhere controls no terminal, wherever it is printed."""

from __future__ import annotations

import ast
import json
import logging
import logging.config
import unicodedata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.runtime.progress import PlainProgress, progress_bar
from vr_pipeline.terminal import CleanFormatter, clean_logs, echo, guard_messages, one_line, visible

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "a\x1b]0;title\x07\x1b[2J\x9b2J\u202egnp.exe\x00\x7f\rb"


def harmless(text: str) -> bool:
    """Nothing but what is seen, marks that scripts need, spaces and ends of lines."""
    joiners = "\u200c\u200d\u200e\u200f\u061c\u00ad\ufeff\u2060\u200b"
    return not any(
        (unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} and c not in "\n\t")
        or ("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" or "\ufff9" <= c <= "\ufffb")
        for c in text
        if c not in joiners
    )


@given(st.text(alphabet=st.characters(codec=None)))
def test_nothing_that_controls_is_left_and_nothing_else_is_changed(text):
    shown = visible(text)
    assert harmless(shown)
    assert "\n" not in one_line(text)
    assert "\t" not in one_line(text)
    if harmless(text):
        assert shown == text


@pytest.mark.parametrize(
    "text", ["Привет, мир", "می\u200cخواهم", "\U0001f469\u200d\U0001f680 4K", "שלום\u200f", "日本語"]
)
def test_every_script_reads_as_before(text):
    assert visible(text) == one_line(text) == text


def test_what_is_hidden_is_written_out():
    assert one_line("a\x1b[2J\n\u202eb\x9b\udcff") == "a\\x1b[2J\\n\\u202eb\\u009b\\udcff"


@given(st.text(alphabet=st.characters(codec=None)))
def test_documents_stay_what_they_are(text):
    document = json.dumps({"name": text}, ensure_ascii=False)
    assert json.loads(visible(document)) == json.loads(json.dumps({"name": text}))


def test_echoes_progress_errors_and_lines_of_logs_are_clean(capsys):
    echo(HOSTILE, fg="red", err=True)
    lines: list[str] = []
    bar = PlainProgress(
        description="clips", total=2, clock=iter([0.0, 40.0, 80.0, 120.0, 160.0]).__next__, write=lines.append
    )
    bar.set_postfix(file=HOSTILE)
    bar.update()
    assert progress_bar(description=HOSTILE, total=3).description == one_line(HOSTILE)
    error = InputError(f"no column {HOSTILE}", remedy="add it", file=f"x\n{HOSTILE}", field=HOSTILE)
    record = logging.LogRecord("a", logging.WARNING, "", 1, "file %s", (f"x\n12:00 ERROR forged {HOSTILE}",), None)
    logged = CleanFormatter(logging.Formatter("%(message)s")).format(record)
    assert record.args[0].startswith("x\n"), "other handlers get what was told"
    printed = capsys.readouterr().err
    for text in (printed, *lines, str(error), logged):
        assert harmless(text), repr(text)
    assert "\n" not in logged
    assert "\n" not in str(error)


def test_tracebacks_keep_their_lines():
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "failed", (), (ValueError, error, error.__traceback__))
    logged = CleanFormatter(logging.Formatter()).format(record)
    assert harmless(logged)
    assert len(logged.splitlines()) >= 3


def test_handlers_that_a_configuration_has_made_write_clean_lines(tmp_path):
    file = tmp_path / "log"
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    own = logging.getLogger("some.logger.with.a.handler")
    own.addHandler(handler)
    clean_logs()
    clean_logs()
    own.warning("%s is not there", HOSTILE)
    own.removeHandler(handler)
    handler.close()
    assert file.read_text() == f"WARNING {one_line(HOSTILE)} is not there\n"


def test_messages_of_commands_are_clean():
    @click.command()
    @click.argument("file", type=click.Path(exists=True))
    @click.option("--broken", is_flag=True)
    def look(file: str, broken: bool) -> None:
        with plain_errors():
            raise InputError(f"not a video {HOSTILE}", remedy="name another", file=HOSTILE)

    guard_messages(look)
    for arguments in ([HOSTILE.replace("\x00", "")], ["/", "--broken"], ["/", f"--{HOSTILE}"]):
        result = CliRunner().invoke(look, arguments)
        assert result.exit_code in (1, 2)
        assert harmless(result.output), repr(result.output)


def test_nothing_prints_past_the_one_place():
    past = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        if file.name == "terminal.py":
            continue
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name in {"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}:
                past.append(f"{file.name}:{call.lineno} {name}")
    assert past == []


def test_pages_show_controls_instead_of_obeying_them():
    from vr_pipeline.evaluation.report.run_lines import run_document
    from vr_pipeline.lineage.page import render_page

    for page in (run_document({"Commit": HOSTILE}), render_page(HOSTILE, [])):
        assert harmless(page)
        assert "\\u202egnp" in page
