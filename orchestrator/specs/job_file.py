"""A job as people write it, before it is checked: a YAML file, and settings such as `steps=300`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.contract.command_line import command
from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError

_SUBMIT_HELP = command("submit", "--help")


def read_job_file(path: Path) -> dict[str, Any]:
    """Read a YAML job file; relative folders in it are relative to the file. Raises SpecError."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        repeated = _repeated_keys(text)
    except FileNotFoundError as error:
        next_step = "check the path; examples/ has files to copy"
        raise SpecError(f"There is no file {path}.", next_step=next_step) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"{path} cannot be read: {error}"
        raise SpecError(message, next_step=_SUBMIT_HELP) from error
    if not isinstance(content, dict):
        next_step = "begin it with `recipe: dreambooth`; see examples/"
        raise SpecError(f"{path} is not a job file.", next_step=next_step)
    if repeated:
        next_step = "leave one of each, then submit again"
        raise SpecError(f"{path} has keys twice.", problems=repeated, next_step=next_step)
    for name in ("images", "scorer"):
        folder = content.get(name)
        if isinstance(folder, str) and folder and not folder.startswith("~"):
            content[name] = path.parent / folder
    base_model = content.get("base_model")
    if isinstance(base_model, str) and base_model:
        folder = path.parent / base_model
        if folder.is_dir():
            content["base_model"] = str(folder)
    return content


def parse_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """Split `key=value` settings; raises SpecError that names every one that has another form."""
    overrides: dict[str, str] = {}
    problems = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if equals and key:
            overrides[key] = value
        else:
            problem = Problem(where=pair, what="is not FIELD=VALUE", fix="write -s steps=300")
            problems.append(problem)
    if problems:
        message = "The settings cannot be read."
        raise SpecError(message, problems=problems, next_step=_SUBMIT_HELP)
    return overrides


def _repeated_keys(text: str) -> list[Problem]:
    """Find keys that are repeated in the file or in one of its sections: YAML would silently use the last."""
    root = yaml.compose(text, yaml.SafeLoader)
    problems = _repeated_in(root)
    if isinstance(root, yaml.MappingNode):  # pairs of nodes: the keys of the file and their sections
        for _, section in root.value:
            problems += _repeated_in(section)
    return problems


def _repeated_in(section: yaml.Node | None) -> list[Problem]:
    """Return a problem for each key of a section that is repeated, with both lines; other nodes have none."""
    if not isinstance(section, yaml.MappingNode):
        return []
    first_lines: dict[str, int] = {}
    problems = []
    for key, _ in section.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name = key.value
        line = key.start_mark.line + 1
        if name in first_lines:
            what = f"is in line {first_lines[name]} and again in line {line}"
            problems.append(Problem(where=name, what=what))
        else:
            first_lines[name] = line
    return problems
