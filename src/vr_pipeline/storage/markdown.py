"""Text from other sources in Markdown documents, shown literally: never as link, picture, HTML, code or table."""

import re

_SPECIAL = re.compile(r"[\\`*~|<>&]|\](?=[(\[:])|(?<=:)/(?=/)|^[#+=-]|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)")


def as_text(text: object) -> str:
    """Return text as one line that Markdown shows literally; characters that could be markup become entities."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))


def as_code(text: object) -> str:
    """Return the text as a span of code, also within a table."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"
