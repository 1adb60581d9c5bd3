"""A job as people write it, before it is checked: a YAML file, and settings such as `steps=300`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.specs.yaml_file import read_yaml

_SUBMIT_HELP = command("submit", "--help")
_FOLDERS = ("images", "prompts", "scorer")
_TEXTS = ("images", "prompts", "prompt", "base_model", "name")
"""Fields that are texts. One without a value would be as one that is not there: the sample subject would be trained."""


def read_job_file(path: Path) -> dict[str, Any]:
    """Read a YAML job file; relative folders in it are relative to the file. Raises SpecError."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        next_step = "begin it with `recipe: dreambooth`; see examples/"
        raise SpecError(f"{path} is not a job file.", next_step=next_step)
    _require_values(path, content)
    for field in _FOLDERS:
        folder = content.get(field)
        if isinstance(folder, str) and folder and not folder.startswith("~"):
            content[field] = path.parent / folder
    _resolve_base_model(path, content)
    settings = content.get("settings")
    if isinstance(settings, dict):
        _resolve_base_model(path, settings)
    return content


def _resolve_base_model(path: Path, fields: dict[str, Any]) -> None:
    """Make a base model relative to the file if a folder lies there; any other name is one of the Hub or an address."""
    name = fields.get("base_model")
    if not isinstance(name, str) or not name:
        return
    folder = path.parent / name
    if folder.is_dir():
        fields["base_model"] = str(folder)


def _require_values(path: Path, content: dict[str, Any]) -> None:
    """Raise SpecError for a text that is left empty, or that YAML reads as nothing ("~", null)."""
    problems = []
    for field in _TEXTS:
        if field in content and content[field] is None:
            problem = Problem(
                where=field,
                what="has no value",
                fix="leave the line out, or put its text in quotes",
            )
            problems.append(problem)
    if problems:
        message = f"{path} has fields without a value."
        raise SpecError(message, problems=problems, next_step="write what is missing, then submit again")


def parse_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """Split `key=value` settings; the last of a key counts. Raises SpecError that names every one of another form."""
    overrides: dict[str, str] = {}
    problems = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if equals and key:
            overrides[key] = value
        else:
            problem = Problem(
                where=pair,
                what="is not FIELD=VALUE",
                fix="write -s steps=300",
            )
            problems.append(problem)
    if problems:
        message = "The settings cannot be read."
        raise SpecError(message, problems=problems, next_step=_SUBMIT_HELP)
    return overrides
