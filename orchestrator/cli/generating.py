"""Images from an endpoint, and into which files they go."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.cli.asked_images import UNDONE, Typed, request_of
from orchestrator.cli.compare_grid import Row, render_grid
from orchestrator.cli.endpoint_options import find
from orchestrator.cli.image_files import image_files, require_free, write_image
from orchestrator.cli.output import print_facts, print_json
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted
from orchestrator.endpoints.hosts import EndpointDescription, EndpointStatus, Host
from orchestrator.endpoints.requests import JSON, Answered, Image, Request, invoke_patiently, read_answer
from orchestrator.errors import EndpointError, SpecError

_COLUMNS_AT_ONCE = 8


def generate_images(
    name: str,
    host: str | None,
    typed: Typed,
    *,
    as_json: bool,
) -> None:
    """Have an endpoint draw, and print which files were written."""
    chosen, endpoint = ready_endpoint(name, host)
    request = request_of(typed, endpoint)
    count = len(request.generation.images)
    files = image_files(typed.output, name, count)
    require_free(files, force=typed.force)
    answered = _draw(chosen, name, request)
    drawn = counted(len(answered.images), "image")
    if len(answered.images) != count:
        raise EndpointError(
            f"The endpoint {name} answers with {drawn} instead of {count}.",
            next_step=command("endpoints", "logs", name),
        )
    for image, file in zip(answered.images, files, strict=True):
        write_image(file, image.png, force=typed.force)
    _print(answered, files, as_json=as_json)


def _draw(host: Host, name: str, request: Request) -> Answered:
    """Return what an endpoint draws."""
    body = request.body()
    answer = invoke_patiently(host, name, body, JSON, time.sleep)
    return read_answer(answer)


def draw_grid(
    name: str,
    host: str | None,
    typed: Typed,
    *,
    as_json: bool,
) -> None:
    """Draw every prompt with each adapter alone, beside the base model, into one picture."""
    chosen, endpoint = ready_endpoint(name, host)
    if not typed.adapters:
        raise SpecError(
            f"--grid compares adapters, and none is named. {UNDONE}",
            next_step="add --adapter NAME for each that is to be compared",
        )
    seed = typed.seed or 0  # all columns have the same seeds, or they could not be compared
    seeded = typed._replace(seed=seed)
    base = request_of(seeded._replace(adapters=()), endpoint)
    compared = {}
    for adapter in typed.adapters:
        alone = seeded._replace(adapters=(adapter,))
        compared[adapter] = request_of(alone, endpoint)
    output = typed.output or f"{name}-grid.png"
    (file,) = image_files(output, name, 1)
    require_free([file], force=typed.force)

    def row_of(request: Request) -> Row:
        answered = _draw(chosen, name, request)
        return _by_prompt(answered.images)

    with ThreadPoolExecutor(_COLUMNS_AT_ONCE) as pool:  # the endpoint draws them together
        first = pool.submit(row_of, base)
        rows = list(pool.map(row_of, compared.values()))
    columns = dict(zip(compared, rows, strict=True))
    sheet = render_grid(endpoint.name, first.result(), columns)
    write_image(file, sheet, force=typed.force)
    if as_json:
        path = str(file.absolute())
        print_json({"file": path, "adapters": list(compared), "seed": seed})
        return
    print_facts([("grid", str(file)), ("first seed", str(seed))])


def _by_prompt(images: Sequence[Image]) -> Row:
    rows: dict[str, list[bytes]] = {}
    for image in images:
        row = rows.setdefault(image.prompt, [])
        row.append(image.png)
    return rows


def ready_endpoint(name: str, host: str | None) -> tuple[Host, EndpointDescription]:
    """Return an endpoint that takes requests; raises EndpointError for one that does not, with why."""
    chosen, endpoint = find(name, host)
    status = endpoint.status
    if status in (EndpointStatus.IN_SERVICE, EndpointStatus.UPDATING):
        return chosen, endpoint
    show = command("endpoints", "show", name)
    if status is EndpointStatus.CREATING:
        message = f"The endpoint {name} is starting, and takes no requests yet."
        raise EndpointError(message, next_step=show)
    why = endpoint.failure_reason or f"Its status is {status.value}."
    next_step = endpoint.next_step or show
    raise EndpointError(
        f"The endpoint {name} does not run. {why}",
        next_step=next_step,
    )


def _print(answered: Answered, files: Sequence[Path], *, as_json: bool) -> None:
    """Print which image of which seed is in which file."""
    if not as_json:
        facts = []
        for image, file in zip(answered.images, files, strict=True):
            flagged = ", flagged by the safety checker" if image.facts.get("flagged") is True else ""
            facts.append((f"seed {image.seed}", f"{file}{flagged}"))
        print_facts(facts)
        return
    images = []
    for image, file in zip(answered.images, files, strict=True):
        entry = {
            "file": str(file.absolute()),
            "prompt": image.prompt,
            "seed": image.seed,
            **image.facts,
        }
        images.append(entry)
    print_json({"adapters": answered.adapters, "images": images})
