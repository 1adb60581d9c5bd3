"""Images from an endpoint: what is asked of it, and into which files they go."""

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from orchestrator.cli.compare_grid import Row, render_grid
from orchestrator.cli.controls import OPTION, Words, controls_of
from orchestrator.cli.endpoint_options import find
from orchestrator.cli.image_files import image_files, require_free, seeds_of, write_image
from orchestrator.cli.output import print_facts, print_json
from orchestrator.contract.command_line import command
from orchestrator.contract.generation import Control
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.datasets.findings import UnusableError, unusable
from orchestrator.datasets.sent_pictures import encoded_picture
from orchestrator.endpoints.batch import adapter_use, draw_lines, read_lines
from orchestrator.endpoints.hosts import EndpointDescription, EndpointStatus, Host
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.requests import JSON, Answered, Image, Request, invoke_patiently, read_answer
from orchestrator.errors import EndpointError, MachineError, SpecError
from orchestrator.settings import typed_path

_UNDONE = "Nothing was drawn."
_HELP = command("generate", "--help")
_LIKELY_SIZE = 512
"""Of images whose size the endpoint chooses: pictures that it is sent are scaled for it."""
_COLUMNS_AT_ONCE = 8
_OPTIONS = {
    "prompts": "--prompt",
    "negative_prompt": "--negative",
    "seeds": "--seed",
    "steps": "--steps",
    "guidance": "--guidance",
    "size": "--size",
    "scheduler": "--scheduler",
    "adapters": "--adapter",
    "embeddings": "--embedding",
    "controls": OPTION,
    "image": "--image",
    "strength": "--strength",
    "mask": "--mask",
}
"""Fields of a generation, and the options that set them."""
_NOT_OF_A_BATCH = ("prompts", "adapters", "embeddings", "controls", "negative", "image", "mask")


def generate_images(name: str, host: str | None, given: Mapping[str, Any], *, as_json: bool) -> None:
    """Have an endpoint draw, and print which files were written."""
    chosen, endpoint = _ready(name, host)
    request = _request(given, endpoint)
    count = given["count"]
    files = image_files(given["output"], name, len(request.generation.prompts) * count)
    require_free(files, force=given["force"])
    answered = read_answer(invoke_patiently(chosen, name, request.body(count), JSON, time.sleep))
    if len(answered.images) != len(files):
        message = f"The endpoint {name} answers with {counted(len(answered.images), 'image')} instead of {len(files)}."
        raise EndpointError(message, next_step=command("endpoints", "logs", name))
    for image, file in zip(answered.images, files, strict=True):
        write_image(file, image.png, force=given["force"])
    _print(answered, files, as_json=as_json)


def draw_grid(name: str, host: str | None, given: Mapping[str, Any], *, as_json: bool) -> None:
    """Draw every prompt with each adapter alone, beside the base model, into one picture."""
    chosen, endpoint = _ready(name, host)
    if not given["adapters"]:
        raise SpecError(
            f"--grid compares adapters, and none is named. {_UNDONE}",
            next_step="add --adapter NAME for each that is to be compared",
        )
    seed = given["seed"] or 0  # all columns have the same seeds, or they could not be compared
    alone = []
    compared = list(dict.fromkeys(given["adapters"]))
    for adapters in ((), *((text,) for text in compared)):
        alone.append(_request({**given, "adapters": adapters, "seed": seed}, endpoint))
    (file,) = image_files(given["output"] or f"{name}-grid.png", name, 1)
    require_free([file], force=given["force"])

    def draw(request: Request) -> list[Image]:
        return read_answer(invoke_patiently(chosen, name, request.body(), JSON, time.sleep)).images

    with ThreadPoolExecutor(_COLUMNS_AT_ONCE) as pool:  # the endpoint draws them together
        base, *columns = pool.map(draw, alone)
    rows: list[Row] = [_by_prompt(images) for images in columns]
    sheet = render_grid(endpoint.name, _by_prompt(base), dict(zip(compared, rows, strict=True)))
    write_image(file, sheet, force=given["force"])
    if as_json:
        print_json({"file": str(file.absolute()), "adapters": compared, "seed": seed})
        return
    print_facts([("grid", str(file)), ("first seed", str(seed))])


def draw_batch(name: str, host: str | None, batch: str, given: Mapping[str, Any], *, grid: bool, as_json: bool) -> None:
    """Draw the lines of a file into a folder, and print how many there are."""
    typed = [option for option in _NOT_OF_A_BATCH if given.get(option)]
    if grid or typed:
        raise SpecError(
            f"--batch draws what the lines of its file say, and nothing else. {_UNDONE}",
            next_step="write prompts and adapters into the file, and leave out the options that name them",
        )
    lines = read_lines(typed_path(batch))
    chosen, _ = _ready(name, host)
    if not isinstance(chosen, LocalHost):
        message = f"--batch draws on endpoints of this machine, and {name} is on {chosen.name}. {_UNDONE}"
        raise EndpointError(message, next_step=command("deploy", name))
    folder = typed_path(given["output"] or f"{name}-images")
    _make(folder)

    def report(done: int, of: int) -> None:
        if not as_json:
            click.echo(f"image {done} of {of}", err=True)

    drawn = draw_lines(lines, name, chosen, folder, report)
    unique = len(set(drawn.files))
    if as_json:
        print_json({"folder": str(folder), "images": unique, "new": drawn.new})
        return
    print_facts([("folder", str(folder)), ("images", f"{unique}, {drawn.new} of them new")])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"No image can be written into {folder}: {error.strerror}. {_UNDONE}"
        raise MachineError(message, next_step="name another folder with -o") from error


def _ready(name: str, host: str | None) -> tuple[Host, EndpointDescription]:
    """Return an endpoint that takes requests; raises EndpointError for one that does not, with why."""
    chosen, endpoint = find(name, host)
    if endpoint.status in (EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING):
        return chosen, endpoint
    show = command("endpoints", "show", name)
    if endpoint.status is EndpointStatus.CREATING:
        raise EndpointError(f"The endpoint {name} is starting, and takes no requests yet.", next_step=show)
    why = endpoint.failure_reason or f"Its status is {endpoint.status.value}."
    message = f"The endpoint {name} does not run. {why}"
    raise EndpointError(message, next_step=endpoint.next_step or show)


def _request(given: Mapping[str, Any], endpoint: EndpointDescription) -> Request:
    """Return the request for what was typed; raises SpecError with all that is wrong with it."""
    size = given["size"] or _LIKELY_SIZE
    problems = _unknown(given, endpoint)
    controls, weights, found = controls_of(given["controls"], size, _network_of)
    problems += found
    for kind in weights:
        fix = "leave weights out: the endpoint uses those that it has, or send the map itself with map:"
        problems.append(Problem(where=OPTION, what=f"{kind} names weights of this machine", fix=fix))
    problems += _unknown_networks(controls, endpoint)
    seeds, out_of_range = seeds_of(given["seed"] or 0, given["count"])
    problems += out_of_range
    values = {
        "prompts": given["prompts"],
        "negative_prompt": given["negative"],
        "seeds": seeds if given["seed"] is not None else None,
        "adapters": [adapter_use(text) for text in given["adapters"]],
        "embeddings": given["embeddings"],
        "controls": controls,
        "strength": given["strength"],
    }
    for name in ("steps", "guidance", "size", "scheduler"):
        values[name] = given[name]
    pictures, found = _pictures(given, size)
    values.update(pictures)
    problems += found
    if not given["prompts"]:
        problems.append(Problem(where="--prompt", what="says what to draw, and is missing", fix="add --prompt TEXT"))
        values["prompts"] = ["?"]
    try:
        request = Request.of(values)
    except ValidationError as error:
        for problem in problems_of(error, whole="request"):
            field = re.split(r"[.\[]", problem.where)[0]
            problems.append(problem.model_copy(update={"where": _OPTIONS.get(field, problem.where)}))
    if problems:
        raise SpecError(_UNDONE, problems=problems, next_step=_next_step(problems, endpoint))
    return request


def _pictures(given: Mapping[str, Any], size: int) -> tuple[dict[str, bytes], list[Problem]]:
    """Return the pictures that images begin with, in base64, and what is wrong with them."""
    pictures = {}
    problems = []
    for name, what_for in (("image", "begin"), ("mask", "mask")):
        if given[name] is None:
            continue
        try:
            pictures[name] = encoded_picture(given[name], size, what_for, f"--{name} PICTURE")
        except UnusableError as error:
            for defect in error.defects:
                problems.append(Problem(where=f"--{name} {given[name]}", what=defect.what, fix=defect.fix))
    return pictures, problems


def _next_step(problems: Sequence[Problem], endpoint: EndpointDescription) -> str:
    """Return what to type: where adapters are unknown, what shows those that there are."""
    if all(problem.where.startswith(("--adapter", "--embedding")) for problem in problems):
        return command("endpoints", "show", endpoint.name)
    return _HELP


def _unknown(given: Mapping[str, Any], endpoint: EndpointDescription) -> list[Problem]:
    """Return a problem for each adapter that an endpoint does not have."""
    typed = [("--adapter", adapter_use(text)["name"]) for text in given["adapters"]]
    typed += [("--embedding", name) for name in given["embeddings"]]
    problems = []
    for option, name in typed:
        if name not in endpoint.adapters:
            problems.append(_missing(f"{option} {name}", "adapter", endpoint))
    return problems


def _unknown_networks(controls: Sequence[Control], endpoint: EndpointDescription) -> list[Problem]:
    problems = []
    for control in controls:
        if control.network not in endpoint.adapters:
            problems.append(_missing(f"{OPTION} net={control.network}", "ControlNet", endpoint))
    return problems


def _missing(where: str, kind: str, endpoint: EndpointDescription) -> Problem:
    name = re.split("[ =]", where)[-1]
    fix = did_you_mean(name, endpoint.adapters)
    if not endpoint.adapters:
        fix = "add it: endpoints update --add NAME"
    return Problem(where=where, what=f"the endpoint {endpoint.name} has no such {kind}", fix=fix)


def _network_of(words: Words) -> str:
    """Return the ControlNet of a control; raises UnusableError where none is named."""
    if not words.network:
        raise unusable("names no ControlNet", "add one that the endpoint has: ,net=NAME")
    return words.network


def _by_prompt(images: Sequence[Image]) -> Row:
    rows: dict[str, list[bytes]] = {}
    for image in images:
        rows.setdefault(image.prompt, []).append(image.png)
    return rows


def _print(answered: Answered, files: Sequence[Path], *, as_json: bool) -> None:
    """Print which image of which seed is in which file."""
    if not as_json:
        facts = []
        for image, file in zip(answered.images, files, strict=True):
            facts.append((f"seed {image.seed}", str(file)))
        print_facts(facts)
        return
    images = []
    for image, file in zip(answered.images, files, strict=True):
        path = str(file.absolute())
        images.append({"file": path, "prompt": image.prompt, "seed": image.seed, **image.facts})
    print_json({"adapters": answered.adapters, "images": images})
