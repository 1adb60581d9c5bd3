"""From a job file and the command line to one checked `JobSpec`, all problems at once."""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_origin

from pydantic import ValidationError

from orchestrator.contract.datasets import IMAGES
from orchestrator.contract.problem import MISSING, Problem, did_you_mean, problems_of
from orchestrator.contract.recipe import BUILTIN, FAMILY_CONTEXT, Recipe, recipe_class
from orchestrator.contract.words import NOT_ONE_WORD
from orchestrator.errors import SpecError
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.specs.base_model import base_model_problems, known_family, native_settings
from orchestrator.specs.compute import Budget, Compute
from orchestrator.specs.job import JobSpec

_PARTS = ("compute", "budget")


_ADVICE = {
    IMAGES: "name the folder that holds your pictures: --images DIR",
    "base_model": "name another model: --base-model MODEL",
    "name": "choose another name: --name NAME",
    **dict.fromkeys(_PARTS, "change what is named above, then submit again; docs/job-files.md has every field"),
}
"""What to do when this part of a job is the only one at fault; the recipe's settings are no help then."""


Built = TypeVar("Built")


def is_list(recipe: type[Recipe], field: str) -> bool:
    """Return whether a field of a recipe holds several values, so that it is typed as a JSON list."""
    declared = recipe.model_fields.get(field)
    return declared is not None and get_origin(declared.annotation) is tuple


def build_spec(fields: Mapping[str, Any], words: Mapping[str, str] | None = None) -> JobSpec:
    """Check the fields of a job file or command line; raises SpecError that carries every problem found.

    `fields` are `recipe` (a name), `images`, `name`, `prompt`, `base_model`, `settings` (the recipe's fields),
    `compute` and `budget` (the fields of those);
    `words` are settings typed on the command line, which come before those; `compute.spot` and the like are the fields
    of those parts. Without pictures of their own, a person gets the built-in sample subject and the prompt that goes
    with it.
    """
    fields = {key: value for key, value in fields.items() if value is not None}
    fields, words = _parted(fields, words or {})
    recipe_type = declaration(fields.get("recipe"))
    problems = _unknown_keys(fields)
    settings = {**_sample_settings(recipe_type, fields), **_mapping(fields.get("settings"), problems)}
    problems += _place_prompt(recipe_type, fields, settings)
    if "base_model" in fields:
        settings["base_model"] = fields["base_model"]
    settings |= _typed(recipe_type, words, problems)
    base_model = settings.get("base_model", BUILTIN)
    settings = {**native_settings(base_model), **settings}
    context = {FAMILY_CONTEXT: known_family(base_model)}
    recipe = _collect(problems, lambda: recipe_type.model_validate(settings, context=context), recipe_type.model_fields)
    problems += base_model_problems(base_model, settings.get("base_revision"))
    job: dict[str, Any] = {key: fields[key] for key in ("name", *_PARTS) if key in fields}
    job["inputs"] = _inputs(recipe_type, fields, problems)
    # A recipe without its settings stands in where the real one is wrong, so that one problem does not hide another.
    job["recipe"] = recipe or recipe_type.model_construct()
    spec = _collect(problems, lambda: JobSpec.model_validate(job), [*Compute.model_fields, *Budget.model_fields])
    problems = [_in_words_of_the_command(problem, recipe_type) for problem in problems]
    if problems or spec is None:
        raise _spec_error(recipe_type, problems)
    return spec


def _parted(fields: dict[str, Any], words: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Move words such as `compute.volume_gb=200` to the part of the job that they name."""
    settings = dict(words)
    for name in _PARTS:
        said = {key: settings.pop(key) for key in words if key.startswith(f"{name}.")}
        if said and isinstance(fields.get(name, {}), dict):
            typed = {key.removeprefix(f"{name}."): None if word == "null" else word for key, word in said.items()}
            fields = {**fields, name: {**fields.get(name, {}), **typed}}
    return fields, settings


def _typed(recipe: type[Recipe], words: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    """Give words the shape of their fields: a list is written as JSON, `null` is none, pydantic does the rest."""
    typed: dict[str, Any] = {}
    for key, word in words.items():
        if word == "null":
            typed[key] = None
        elif is_list(recipe, key):
            try:
                typed[key] = json.loads(word)
            except ValueError:
                fix = f"""write -s '{key}=["one", "two"]'"""
                problems.append(Problem(where=key, what=f"{word} is no JSON list", fix=fix))
        else:
            typed[key] = word
    return typed


def declaration(name: object) -> type[Recipe]:
    """Return a recipe's declaration; raises SpecError with a suggestion when there is none."""
    if name is None:
        message = "The job names no recipe; its file needs a line such as `recipe: dreambooth`."
        raise SpecError(message, next_step="python -m orchestrator recipes list")
    try:
        return recipe_class(str(name))
    except ValueError as error:
        raise SpecError(_sentence(str(error)), next_step="python -m orchestrator recipes list") from error


def _unknown_keys(fields: Mapping[str, Any]) -> list[Problem]:
    known = {"recipe", IMAGES, "name", "prompt", "base_model", "settings", *_PARTS}
    return [
        Problem(where=str(key), what="there is no such field", fix=did_you_mean(str(key), known))
        for key in fields
        if key not in known
    ]


def _mapping(settings: object, problems: list[Problem]) -> dict[str, Any]:
    if settings is None:
        return {}
    if isinstance(settings, dict):
        return {str(key): value for key, value in settings.items()}
    problems.append(Problem(where="settings", what="is not a list of `field: value` lines"))
    return {}


def _sample_settings(recipe: type[Recipe], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {} if IMAGES in fields else dict(recipe.sample_defaults)


def _inputs(recipe: type[Recipe], fields: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Return the folders the recipe learns from: the person's pictures, or else the sample subject's."""
    if IMAGES in recipe.dataset.inputs:
        return {IMAGES: fields.get(IMAGES, SAMPLE_IMAGES)}
    if IMAGES in fields:
        what = f"{recipe.recipe_name()} learns from no pictures"
        problems.append(Problem(where=IMAGES, what=what, fix="leave --images out"))
    return {}


def _place_prompt(recipe: type[Recipe], fields: Mapping[str, Any], settings: dict[str, Any]) -> list[Problem]:
    field, prompt = recipe.prompt_field, fields.get("prompt")
    if prompt is None:
        return []
    if IMAGES in recipe.dataset.inputs and IMAGES not in fields:
        return [Problem(where="prompt", what="was given without pictures", fix="add --images DIR, or leave it out")]
    if field is None:
        return [Problem(where="prompt", what=f"{recipe.recipe_name()} takes none")]
    settings[field] = prompt
    return []


def _in_words_of_the_command(problem: Problem, recipe: type[Recipe]) -> Problem:
    if problem.where.startswith("inputs."):
        return problem.model_copy(update={"where": problem.where.removeprefix("inputs.")})
    field = recipe.model_fields.get(problem.where)
    if field is None or not problem.what.endswith((MISSING, NOT_ONE_WORD)):
        return problem
    example = (field.examples or [field.default])[0]
    as_prompt = problem.where == recipe.prompt_field
    words = f'--prompt "{example}"' if as_prompt else f"-s {shlex.quote(f'{problem.where}={example}')}"
    return problem.model_copy(update={"fix": f"write, for example: {words}"})


def _collect(problems: list[Problem], build: Callable[[], Built], known: Iterable[str]) -> Built | None:
    try:
        return build()
    except ValidationError as error:
        problems += problems_of(error, known)
        return None


def _spec_error(declaration: type[Recipe], problems: list[Problem]) -> SpecError:
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    name = declaration.recipe_name()
    advice = {_ADVICE.get(problem.where.partition(".")[0]) for problem in problems}
    return SpecError(
        f"The {name} job has {count}; nothing was started.",
        problems=problems,
        next_step=(len(advice) == 1 and advice.pop()) or f"python -m orchestrator recipes show {name}",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
