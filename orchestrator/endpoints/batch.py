"""Draw a batch on an endpoint of any host: interrupted anywhere, the next run goes on with what is missing."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from orchestrator.contract.batch_result import image_id
from orchestrator.contract.command_line import PROGRAM
from orchestrator.contract.problem import Problem, did_you_mean
from orchestrator.endpoints.batch_folder import BatchFolder, BatchImage
from orchestrator.endpoints.hosts import Contents, EndpointDescription, Host
from orchestrator.endpoints.requests import Request, checked_png, invoke_patiently
from orchestrator.errors import EndpointError, OrchestratorError, ServiceError, SpecError
from orchestrator.planning.batch import unusable_adapters
from orchestrator.specs.batch_line import AskedLine, CheckedLine, Claims, check_line, with_left_out

REQUESTS_AN_INSTANCE = 8
"""Requests at a time: a server draws them together."""
MOST_REQUESTS = 64
MOST_FAILURES = 16
"""One after another: then it is the endpoint that fails, and not a line."""
_PNG = "image/png"
_OF_A_LINE = (EndpointError, SpecError, ServiceError)
"""Errors after which another image may still be drawn."""


@dataclass
class Outcome:
    """What a batch has come to."""

    new: int = 0
    """Images that were drawn now."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why an image is not there, by its file."""
    given_up: OrchestratorError | None = None
    """Why no more were tried."""


def images_of(
    asked: Sequence[AskedLine],
    chosen: Mapping[str, Any],
    endpoint: EndpointDescription,
    contents: Contents,
) -> tuple[list[BatchImage], list[Problem]]:
    """Return the images of lines, and all that is wrong with these; `chosen` are settings that lines leave out."""
    problems = unusable_adapters(asked, _unknown_adapters(asked, endpoint, contents))
    claims = Claims()
    images = []
    for line, uses in asked:
        checked, found = check_line(line, uses, with_left_out(line, chosen))
        problems += found
        is_known = all(use.name in contents.adapters for use in uses)
        if checked is None or not is_known:
            continue
        too_many = claims.problem_of_number(line, len(checked.seeds))
        if too_many is not None:
            problems.append(too_many)
            break
        for name, seed in zip(checked.names, checked.seeds, strict=True):
            image = _image(line.number, name, seed, checked, contents)
            problem = claims.problem_of(line, image.id, name)
            if problem is not None:
                problems.append(problem)
            images.append(image)
    return images, problems


def _unknown_adapters(
    asked: Sequence[AskedLine],
    endpoint: EndpointDescription,
    contents: Contents,
) -> dict[str, str]:
    """Return why adapters cannot be used that an endpoint does not have, by their names."""
    faults = {}
    for _, uses in asked:
        for use in uses:
            if use.name in contents.adapters or use.name in faults:
                continue
            hint = did_you_mean(use.name, contents.adapters)
            hint = hint or f"add it: {PROGRAM} endpoints update {endpoint.name} --add {use.name}"
            faults[use.name] = f'the endpoint {endpoint.name} has no adapter "{use.name}" ({hint})'
    return faults


def _image(
    number: int,
    name: str,
    seed: int,
    checked: CheckedLine,
    contents: Contents,
) -> BatchImage:
    """Return an image of a line, with the hash of all that it depends on."""
    generation = checked.generation.model_copy(update={"seeds": (seed,)})
    request = Request(generation, frozenset({"prompts", "seeds", "adapters", *checked.settings}))
    values = {"prompt": generation.prompts[0], "seed": seed, **checked.settings}
    adapters = [(contents.adapters[use.name], use.weight) for use in generation.adapters]
    return BatchImage(number, name, image_id(contents.base_model, values, adapters), seed, request)


def draw_images(
    images: Sequence[BatchImage],
    host: Host,
    endpoint: EndpointDescription,
    folder: BatchFolder,
    report: Callable[[int, int], None],
    *,
    force: bool = False,
) -> Outcome:
    """Draw the images that are not in the folder yet, and write the index; a failure loses no other image.

    `report` is told how many of how many images are there. Raises what `BatchFolder.begin` raises.
    """
    missing = folder.begin(images, force=force)
    there = len(images) - len(missing)
    report(there, len(images))
    outcome = Outcome(missing={image.file: "was not tried" for image in missing})
    given_up = threading.Event()
    threads = min(REQUESTS_AN_INSTANCE * max(endpoint.instances or 1, 1), MOST_REQUESTS)
    pool = ThreadPoolExecutor(threads, "batch")
    try:
        futures = {}
        for image in missing:
            future = pool.submit(_draw, image, host, endpoint.name, folder, given_up)
            futures[future] = image
        failures = 0
        for future in as_completed(futures):
            failures = _note(future, futures[future], outcome, failures)
            if outcome.given_up is not None:
                break
            report(there + outcome.new, len(images))
    finally:  # also after Ctrl-C: those that have begun are drawn, and no more begin
        given_up.set()
        pool.shutdown(cancel_futures=True)
        for image in missing:
            if (folder.path / image.file).exists():
                outcome.missing.pop(image.file, None)
        folder.write_index(images, outcome.missing)
    outcome.new = len(missing) - len(outcome.missing)
    return outcome


def _note(
    future: "Future[None]",
    image: BatchImage,
    outcome: Outcome,
    failures: int,
) -> int:
    """Note what came of an image, and return how many have failed one after another."""
    error = future.exception()
    if error is None:
        outcome.new += 1
        del outcome.missing[image.file]
        return 0
    if not isinstance(error, OrchestratorError):
        raise error
    outcome.missing[image.file] = error.message
    failures += 1
    if not isinstance(error, _OF_A_LINE) or failures >= MOST_FAILURES:
        outcome.given_up = error
    return failures


def _draw(
    image: BatchImage,
    host: Host,
    name: str,
    folder: BatchFolder,
    given_up: threading.Event,
) -> None:
    """Draw an image into its file."""
    body = image.request.body()
    answer = invoke_patiently(host, name, body, _PNG, given_up.wait)
    folder.write(image, checked_png(answer.content))
