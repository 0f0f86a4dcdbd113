"""Formats with winner and loser: tables, VideoDPO's list, and two folders with the same file names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.embedded import clip_name
from vr_pipeline.preferences.rows import Comparison, Comparisons, Source
from vr_pipeline.preferences.segments import segments_in
from vr_pipeline.prompts.read import PROMPT_COLUMNS
from vr_pipeline.storage.tables import Entries, Entry, read_entries
from vr_pipeline.storage.values import as_text
from vr_pipeline.video.find import MEDIA_SUFFIXES

WINNERS, LOSERS = "w", "l"
"""Folders of winners and losers."""
CAPTION_FILES: Final = ("captions", "prompts", "metadata")
"""Names of the table of prompts of two folders, in order of preference."""
_CAPTION_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_FILE_COLUMNS = ("file", "file_name", "video", "clip", "video_path", "name")


def winner_and_loser(
    prompt: Sequence[str], winner: Sequence[str], loser: Sequence[str]
) -> Callable[[Source], Comparisons]:
    """Return a reader of rows with winner and loser, and perhaps annotator, source and segments.

    Args:
        prompt, winner, loser: columns, of which the first present is used.
    """

    def read(source: Source) -> Comparisons:
        rows = zip(
            source.column(*prompt),
            source.columns_of([winner, loser]),
            source.columns_of([["annotator"], ["source"]], required=False),
            strict=True,
        )
        parts = segments_in(source)
        for i, (text, files, (annotator, origin)) in enumerate(rows):
            named = (clip_name(files[0]), clip_name(files[1]))
            yield i, Comparison(text, named, "a", annotator, source=origin, more=parts[i])

    return read


def video_dpo(source: Source) -> Comparisons:
    """Read VideoDPO's pair.json (Liu et al. 2024, VideoDPO): video1 is preferred by score, which is kept.

    A clip is a path, or its number in the published lists: even ones are winvideos, odd ones losevideos, both from 0.
    """
    scored = source.has("score")
    if scored:
        source.further_columns.append("score")
    rows = zip(
        source.column("frame_caption"),
        source.columns_of([["video1"], ["video2"]]),
        source.column("score", required=False),
        strict=True,
    )
    for i, (caption, clips, score) in enumerate(rows):
        more = {"score": source.numbers([score], i, "score", 1)[0]} if scored else {}
        yield i, Comparison(caption, (_by_number(clips[0]), _by_number(clips[1])), "a", more=more)


def _by_number(clip: Any) -> Any:
    if not isinstance(clip, int) or isinstance(clip, bool) or clip < 0:
        return clip
    return f"{('winvideos', 'losevideos')[clip % 2]}/{clip // 2:06d}.mp4"


def read_folders(path: Path) -> Entries:
    """Read two folders ``w`` and ``l``, in which clips with the same name are winner and loser.

    Names include subfolders, but not suffixes. A clip without partner is a row with a missing partner. Prompts are in a
    table next to the folders (:data:`CAPTION_FILES`: columns of clip names and prompts, or one JSON object of names and
    prompts), else in text files ``w/a.txt``, ``l/a.txt`` or ``a.txt`` next to the folders.

    Raises:
        InputError: a folder is missing or empty, or the table of prompts is invalid.
    """
    clips = {}
    for name in (WINNERS, LOSERS):
        if not (path / name).is_dir():
            raise InputError(
                f"folder '{name}' is missing",
                remedy=f"put winners into '{WINNERS}' and losers into '{LOSERS}', with the same file name for a pair",
                file=path,
            )
        clips[name] = _clips_by_stem(path / name)
    captions = _captions(path)
    rows = []
    for number, stem in enumerate(sorted(set(clips[WINNERS]) | set(clips[LOSERS])), start=1):
        files = {side: clips[side].get(stem) for side in clips}
        there = next(file for file in files.values() if file is not None)
        winner, loser = (f"{side}/{files[side] or there}" for side in (WINNERS, LOSERS))
        prompt = captions.get(stem) if captions is not None else _text_beside(path, stem)
        problem = "" if prompt and prompt.strip() else f"there is no prompt for '{stem}' {_where(path, stem)}"
        values = {"prompt": prompt, "winner": winner, "loser": loser}
        rows.append(Entry(number, {} if problem else values, problem))
    return Entries(path, ("prompt", "winner", "loser"), rows)


def prompts_of_folders(path: Path) -> str:
    """Return the source of the prompts of two folders, in words."""
    table = _caption_file(path)
    return table.name if table is not None else "the text files next to the clips"


def _where(path: Path, stem: str) -> str:
    table = _caption_file(path)
    return f"in {table.name}" if table is not None else f"(no {WINNERS}/{stem}.txt, and no captions.csv)"


def _clips_by_stem(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if not file.is_file() or file.suffix.lower() not in MEDIA_SUFFIXES or name.name.startswith("."):
            continue
        stem = name.with_suffix("").as_posix()
        if stem in found:
            raise InputError(
                f"'{found[stem]}' and '{name.as_posix()}' differ only in their suffix",
                remedy="rename or remove one of them",
                file=folder,
            )
        found[stem] = name.as_posix()
    if not found:
        raise InputError("the folder has no clips", remedy="put the clips there", file=folder)
    return found


def _caption_file(path: Path) -> Path | None:
    names = (f"{name}{ending}" for name in CAPTION_FILES for ending in _CAPTION_ENDINGS)
    return next((path / name for name in names if (path / name).is_file()), None)


def _captions(path: Path) -> dict[str, str] | None:
    """Return prompts by clip name without suffix; None without a table."""
    table = _caption_file(path)
    if table is None:
        return None
    entries = read_entries(table)
    prompt, file = entries.find(*PROMPT_COLUMNS), entries.find(*_FILE_COLUMNS)
    if prompt is None and file is None and len(entries.rows) == 1:  # one object: name -> prompt
        pairs = list(entries.rows[0].values.items())
    elif prompt is None or file is None:
        lacking, known = ("prompt", PROMPT_COLUMNS) if prompt is None else ("file", _FILE_COLUMNS)
        raise InputError(
            f"column '{lacking}' (or {', '.join(known[1:])}) is missing",
            remedy="give the clips in a column 'file' and their prompts in a column 'prompt'",
            file=table,
            row=entries.header_row,
            field=lacking,
        )
    else:
        pairs = [(as_text(entry.values.get(file)), entry.values.get(prompt)) for entry in entries.rows]
    captions: dict[str, str] = {}
    for name, text in pairs:
        parts = Path(name.strip().replace("\\", "/")).parts
        stem = Path(*(parts[1:] if parts[:1] in ((WINNERS,), (LOSERS,)) else parts)) if parts else Path()
        key = stem.with_suffix("").as_posix() if stem.suffix.lower() in MEDIA_SUFFIXES else stem.as_posix()
        captions.setdefault(key, text if isinstance(text, str) else "")
    return captions


def _text_beside(path: Path, stem: str) -> str | None:
    for folder in (path / WINNERS, path / LOSERS, path):
        file = folder / f"{stem}.txt"
        if file.is_file():
            try:
                return file.read_text(encoding="utf-8-sig").strip()
            except UnicodeDecodeError as error:
                problem = f"the prompt is not UTF-8 ({error.reason})"
                raise InputError(problem, remedy="save it as UTF-8", file=file) from error
    return None
