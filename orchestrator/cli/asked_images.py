"""What `generate` was asked for: options as they were typed, and a request out of them, with all that is wrong."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.cli.controls import OPTION, Words, controls_of
from orchestrator.cli.image_files import seeds_of
from orchestrator.contract.command_line import PROGRAM, command
from orchestrator.contract.generation import Control
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.datasets.findings import UnusableError, unusable
from orchestrator.datasets.sent_pictures import encoded_picture
from orchestrator.endpoints.hosts import EndpointDescription
from orchestrator.endpoints.requests import Request
from orchestrator.errors import SpecError
from orchestrator.specs.batch_line import named_adapter

UNDONE = "Nothing was drawn."
_LIKELY_SIZE = 512
"""Of images whose size the endpoint chooses: pictures that it is sent are scaled for it."""
_OPTIONS = {
    "prompts": "--prompt",
    "negative_prompt": "--negative",
    "seeds": "--seed",
    "steps": "--steps",
    "guidance": "--guidance",
    "size": "--size",
    "width": "--width",
    "height": "--height",
    "scheduler": "--scheduler",
    "adapters": "--adapter",
    "embeddings": "--embedding",
    "controls": OPTION,
    "image": "--image",
    "strength": "--strength",
    "mask": "--mask",
}
"""Fields of a generation, and the options that set them."""


class Typed(NamedTuple):
    """The options of `generate`; None where one was left out."""

    prompts: tuple[str, ...]
    adapters: tuple[str, ...]
    """Each as NAME or NAME:WEIGHT."""
    embeddings: tuple[str, ...]
    controls: tuple[str, ...]
    negative: str | None
    seed: int | None
    number: int
    """Images of each prompt."""
    steps: int | None
    guidance: float | None
    size: int | None
    width: int | None
    height: int | None
    scheduler: str | None
    image: str | None
    strength: float | None
    mask: str | None
    output: str | None
    force: bool

    @property
    def likely_size(self) -> int:
        """The longer side of the images in pixels, or a guess."""
        size = self.size or _LIKELY_SIZE
        return max(self.width or size, self.height or size)


def request_of(typed: Typed, endpoint: EndpointDescription) -> Request:
    """Return the request for what was typed; raises SpecError with all that is wrong with it."""
    values: dict[str, Any] = {
        "prompts": typed.prompts,
        "negative_prompt": typed.negative,
        "steps": typed.steps,
        "guidance": typed.guidance,
        "size": typed.size,
        "width": typed.width,
        "height": typed.height,
        "scheduler": typed.scheduler,
        "embeddings": typed.embeddings,
        "strength": typed.strength,
    }
    adapters, problems = _adapters(typed, endpoint)
    values["adapters"] = adapters
    controls, found = _controls(typed, endpoint)
    values["controls"] = controls
    problems += found
    pictures, found = _pictures(typed)
    values.update(pictures)
    problems += found
    seeds, found = seeds_of(typed.seed or 0, typed.number)
    problems += found
    values["seeds"] = seeds
    if not typed.prompts:
        what = "says what to draw, and is missing"
        problems.append(
            Problem(
                where="--prompt",
                what=what,
                fix="add --prompt TEXT",
            )
        )
        values["prompts"] = ["?"]  # so that everything else is checked too
    request, found = _checked(values)
    problems += found
    if request is None or problems:
        raise SpecError(
            UNDONE,
            problems=problems,
            next_step=_next_step(problems, endpoint),
        )
    if typed.seed is None:
        return request.with_any_seeds()
    return request


def _checked(values: dict[str, Any]) -> tuple[Request | None, list[Problem]]:
    """Return the request of some fields, or what is wrong with them, by the options."""
    problems = []
    try:
        return Request.of(values), []
    except ValidationError as error:
        found = problems_of(error, whole="request")
    for problem in found:
        field = re.split(r"[.\[]", problem.where)[0]
        option = _OPTIONS.get(field, problem.where)
        problems.append(problem.model_copy(update={"where": option}))
    return None, problems


def _next_step(problems: Sequence[Problem], endpoint: EndpointDescription) -> str:
    """Return what to type: where only adapters are unknown, what shows those that there are."""
    for problem in problems:
        if not problem.where.startswith(("--adapter ", "--embedding ")):
            return command("generate", "--help")
    return command("endpoints", "show", endpoint.name)


def _adapters(typed: Typed, endpoint: EndpointDescription) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Return the adapters with their weights, and a problem for each that is misspelled or not on the endpoint."""
    adapters = []
    problems = []
    for text in typed.adapters:
        try:
            adapter = named_adapter(text)
        except ValueError as error:
            problem = Problem(where="--adapter", what=str(error))
            problems.append(problem)
            continue
        adapters.append(adapter)
        name = adapter["name"]
        if name not in endpoint.adapters:
            problems.append(_missing("--adapter ", name, "adapter", endpoint))
    for name in typed.embeddings:
        if name not in endpoint.adapters:
            problems.append(_missing("--embedding ", name, "adapter", endpoint))
    return adapters, problems


def _missing(
    option: str,
    name: str,
    kind: str,
    endpoint: EndpointDescription,
) -> Problem:
    fix = f"add it: {PROGRAM} endpoints update {endpoint.name} --add {name}"
    if endpoint.adapters:
        fix = did_you_mean(name, endpoint.adapters)
    what = f"the endpoint {endpoint.name} has no such {kind}"
    return Problem(
        where=f"{option}{name}",
        what=what,
        fix=fix,
    )


def _controls(typed: Typed, endpoint: EndpointDescription) -> tuple[list[Control], list[Problem]]:
    """Return the controls, and what is wrong with them."""
    controls, weights, problems = controls_of(
        typed.controls,
        typed.likely_size,
        _network_of,
    )
    for kind in weights:
        what = f"{kind} names weights of this machine"
        fix = "leave weights out: the endpoint uses those that it has, or send the map itself with map:"
        problems.append(
            Problem(
                where=OPTION,
                what=what,
                fix=fix,
            )
        )
    for control in controls:
        if control.network not in endpoint.adapters:
            problems.append(
                _missing(
                    f"{OPTION} net=",
                    control.network,
                    "ControlNet",
                    endpoint,
                )
            )
    return controls, problems


def _network_of(words: Words) -> str:
    """Return the ControlNet of a control; raises UnusableError where none is named."""
    if not words.network:
        raise unusable("names no ControlNet", "add one that the endpoint has: ,net=NAME")
    return words.network


def _pictures(typed: Typed) -> tuple[dict[str, bytes], list[Problem]]:
    """Return the pictures that images begin with, in base64, and what is wrong with them."""
    pictures = {}
    problems = []
    named = (
        ("image", typed.image, "begin"),
        ("mask", typed.mask, "mask"),
    )
    for name, path, what_for in named:
        if path is None:
            continue
        option = f"--{name}"
        try:
            pictures[name] = encoded_picture(
                path,
                typed.likely_size,
                what_for,
                f"{option} PICTURE",
            )
        except UnusableError as error:
            for defect in error.defects:
                problems.append(
                    Problem(
                        where=f"{option} {path}",
                        what=defect.what,
                        fix=defect.fix,
                    )
                )
    return pictures, problems
