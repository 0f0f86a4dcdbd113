"""Files of templates: shipped ones and users' own."""

from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.project.template import shipped_files
from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate
from vr_pipeline.runtime.setting_names import validated


def load_template(source: str | Path | UnifiedTemplate | dict[str, Any], folder: Path | None = None) -> UnifiedTemplate:
    """Read a template.

    Args:
        source: a YAML file, the name of a shipped one in conf/templates, or the template itself.
        folder: start of a relative path.

    Raises:
        InputError: the file is missing, or not a template.
    """
    if isinstance(source, UnifiedTemplate):
        return source
    file = None if isinstance(source, dict) else _place_of(str(source), folder or Path())
    content = source if file is None else _read(file)
    what = "the template cannot be used: "
    return validated(UnifiedTemplate, content, remedy="Correct it", file=file, field="template", what=what)


def _place_of(source: str, folder: Path) -> Path:
    path = folder / Path(source).expanduser()
    if path.is_file():
        return path
    shipped = shipped_files() / "conf" / "templates"
    if (named := shipped / f"{source}.yml").is_file():
        return named
    names = ", ".join(sorted(one.stem for one in shipped.glob("*.yml")))
    raise InputError(
        f"template '{source}' not found",
        remedy=f"Give a YAML file, or one of the shipped templates {names}",
        file=path,
        field="template",
    )


def _read(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"the template cannot be read ({problem})", remedy="Correct it", file=path) from error
