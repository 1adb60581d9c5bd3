"""A job as people write it down, before anything is checked: a YAML file, and words such as `steps=300`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError


def read_job_file(path: Path) -> dict[str, Any]:
    """Read a YAML job file; its folders are taken from where the file lies."""
    try:
        text = path.read_text(encoding="utf-8")
        content, doubled = yaml.safe_load(text), _doubled_keys(text)
    except FileNotFoundError as error:
        raise SpecError(f"There is no file {path}.", next_step="check the path; examples/ has files to copy") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path} cannot be read: {error}", next_step="python -m orchestrator submit --help") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} is not a job file", next_step="begin it with `recipe: dreambooth`; see examples/")
    if doubled:
        raise SpecError(
            f"{path} says things twice.", problems=doubled, next_step="leave one of each, then submit again"
        )
    images, base_model = content.get("images"), content.get("base_model")
    if isinstance(images, str) and images and not images.startswith("~"):
        content["images"] = path.parent / images
    if isinstance(base_model, str) and base_model and (path.parent / base_model).is_dir():
        content["base_model"] = str(path.parent / base_model)
    return content


def parse_words(pairs: Iterable[str]) -> dict[str, str]:
    """Take `key=value` words apart; raises SpecError that names every word that is none."""
    words = {}
    problems = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            words[key.strip()] = value
        else:
            problems.append(Problem(where=pair, what="is not FIELD=VALUE", fix="write -s steps=300"))
    if problems:
        raise SpecError(
            "The settings cannot be read.", problems=problems, next_step="python -m orchestrator submit --help"
        )
    return words


def _doubled_keys(text: str) -> list[Problem]:
    """Find keys that stand twice in the file or in its `settings`: YAML would silently take the last."""
    root = yaml.compose(text, yaml.SafeLoader)
    blocks = [root, *(value for _, value in root.value)] if isinstance(root, yaml.MappingNode) else []
    return [problem for block in blocks for problem in _doubled_in(block)]


def _doubled_in(block: yaml.Node) -> list[Problem]:
    if not isinstance(block, yaml.MappingNode):
        return []
    keys = [key for key, _ in block.value if isinstance(key, yaml.ScalarNode)]
    first = {key.value: key for key in reversed(keys)}
    return [_problem(key, first[key.value]) for key in keys if key is not first[key.value]]


def _problem(key: yaml.ScalarNode, first: yaml.ScalarNode) -> Problem:
    line, earlier = key.start_mark.line + 1, first.start_mark.line + 1
    return Problem(where=key.value, what=f"stands in line {earlier} and again in line {line}")
