"""`generate NAME --batch FILE`: a file of prompts, drawn by an endpoint into a folder."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from orchestrator.cli.batch_options import chosen_settings
from orchestrator.cli.generating import ready_endpoint
from orchestrator.cli.output import print_facts, print_json, say
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.endpoints.batch import Outcome, draw_images, images_of
from orchestrator.endpoints.batch_folder import BatchFolder, BatchImage
from orchestrator.errors import EndpointError
from orchestrator.settings import typed_path
from orchestrator.specs.batch_file import read_batch, refused
from orchestrator.specs.batch_line import asked_lines

_SHOWN = 20
"""Missing images that one message names."""


def draw_batch(
    name: str,
    host: str | None,
    batch: str,
    given: Mapping[str, Any],
) -> int:
    """Draw the lines of a file into a folder, print how many images there are, and return the exit code.

    `given` are the options of `generate`. Raises SpecError with all that is wrong with the lines.
    """
    file = typed_path(batch)
    chosen = chosen_settings(given)
    asked, problems = asked_lines(read_batch(file), given["adapters"], given["embeddings"])
    if problems:
        raise refused(file, problems)
    running, endpoint = ready_endpoint(name, host)
    images, problems = images_of(asked, chosen, endpoint, running.contents(name))
    if problems:
        raise refused(file, problems)
    folder = BatchFolder(typed_path(given["output"] or f"{name}-images"), name)

    def report(done: int, of: int) -> None:
        if not given["as_json"]:
            click.echo(f"image {done} of {of}", err=True)

    outcome = draw_images(
        images,
        running,
        endpoint,
        folder,
        report,
        force=given["force"],
    )
    _print(images, outcome, folder, as_json=given["as_json"])
    if not outcome.missing:
        return 0
    error = _incomplete(images, outcome, name)
    if not given["as_json"]:
        say(error.render(), err=True)
    return error.exit_code


def _print(
    images: Sequence[BatchImage],
    outcome: Outcome,
    folder: BatchFolder,
    *,
    as_json: bool,
) -> None:
    """Print how many images are in the folder, and which are missing."""
    there = len(images) - len(outcome.missing)
    if as_json:
        missing = []
        for image in images:
            if image.file in outcome.missing:
                why = outcome.missing[image.file]
                missing.append({"file": image.file, "line": image.line, "why": why})
        print_json({"folder": str(folder.path), "images": there, "new": outcome.new, "missing": missing})
        return
    facts = [
        ("folder", str(folder.path)),
        ("images", f"{there} of {len(images)}, {outcome.new} of them new"),
    ]
    print_facts(facts)


def _incomplete(
    images: Sequence[BatchImage],
    outcome: Outcome,
    name: str,
) -> EndpointError:
    """Return the error of a batch that lacks images, with the first of them and why."""
    problems: list[Problem] = []
    for image in images:
        if image.file in outcome.missing and len(problems) < _SHOWN:
            problems.append(Problem(where=image.where, what=outcome.missing[image.file]))
    more = len(outcome.missing) - len(problems)
    if more > 0:
        problems.append(Problem(where="further images", what=f"{more} more are missing"))
    message = f"{counted(len(outcome.missing), 'image')} of {len(images)} could not be drawn."
    if outcome.given_up is not None:
        message = f"{message} No more were tried: {outcome.given_up.message}"
    logs = command("endpoints", "logs", name)
    return EndpointError(
        message,
        problems=problems,
        next_step=f"{logs}  # then type this command again: it draws what is missing",
    )
