"""What `--control` says: which picture the images follow, by which ControlNet, how far, when and where."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.contract.conditions import MAP_KINDS
from orchestrator.contract.generation import Control
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.datasets.findings import UnusableError
from orchestrator.datasets.sent_pictures import encoded_picture
from orchestrator.settings import typed_path
from orchestrator.terminal import printable

OPTION = "--control"
GRAMMAR = "[map:]KIND=PICTURE[:SCALE][,net=NAME|FOLDER][,start=SHARE][,end=SHARE][,mask=PICTURE][,weights=FOLDER]"
_MAP_PREFIX = "map:"
_NUMBERS = ("scale", "start", "end")
_OWN = (*_NUMBERS, "net", "mask", "weights")
"""Options of every control; a kind of map adds its settings."""
_STAND_IN = b"AA=="
"""In place of a picture that cannot be read, so that everything else is checked too."""
_COMMA = re.compile(r",(?=[a-z_]+=)")
"""Before an option; file names may have other commas."""


class Words(NamedTuple):
    """A `--control`, taken apart."""

    text: str
    """As it was typed, for messages."""
    kind: str
    is_map: bool
    picture: str
    options: dict[str, str]

    @property
    def network(self) -> str | None:
        """The ControlNet that is named, an adapter's name or a folder; None for the adapter that is drawn with."""
        return self.options.get("net")

    @property
    def where(self) -> str:
        """What messages call it."""
        return printable(f"{OPTION} {self.text}")


def take_apart(text: str) -> Words:
    """Return the words of a `--control`; all of them may be wrong."""
    first, *rest = _COMMA.split(text)
    options = {}
    for option in rest:
        name, _, value = option.partition("=")
        options[name] = value
    kind, _, picture = first.partition("=")
    before, colon, scale = picture.rpartition(":")
    if colon and before and _is_number(scale):
        picture = before
        options.setdefault("scale", scale)
    is_map = kind.startswith(_MAP_PREFIX)
    return Words(text, kind.removeprefix(_MAP_PREFIX), is_map, picture, options)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def control_of(words: Words, network: str, size: int) -> tuple[Control | None, list[Problem]]:
    """Return the control, or all that is wrong with it.

    `network` is the name of its ControlNet, `size` the side of the images in pixels: larger pictures are scaled down.
    """
    encoded, problems = _pictures(words, size)
    unknown = _unknown_options(words)
    problems += unknown
    values: dict[str, Any] = {"network": network, "kind": words.kind, "is_map": words.is_map, **encoded}
    settings = {}
    for name, value in words.options.items():
        if name in _NUMBERS:
            values[name] = value
        elif name not in _OWN:
            settings[name] = value
    if not unknown:
        values["settings"] = settings
    try:
        control = Control.model_validate(values)
    except ValidationError as error:
        for problem in problems_of(error):
            problems.append(_placed(problem, words))
        return None, problems
    return (None if problems else control), problems


def _pictures(words: Words, size: int) -> tuple[dict[str, bytes], list[Problem]]:
    """Return the pictures of a control by the name of their field, and what is wrong with them."""
    paths = {"picture": words.picture}
    if "mask" in words.options:
        paths["mask"] = words.options["mask"]
    encoded = {}
    problems = []
    for name, path in paths.items():
        encoded[name] = _STAND_IN
        try:
            encoded[name] = encoded_picture(path, size, "steer", GRAMMAR)
        except UnusableError as error:
            for defect in error.defects:
                what = printable(f'the {name} "{path}" {defect.what}')
                problems.append(Problem(where=words.where, what=what, fix=defect.fix))
    return encoded, problems


def _placed(problem: Problem, words: Words) -> Problem:
    """Return a problem of a field as one of what was typed."""
    what = problem.what
    if problem.where in _OWN:
        what = f"{problem.where}: {what}"
    return problem.model_copy(update={"where": words.where, "what": what})


def _unknown_options(words: Words) -> list[Problem]:
    """Return a problem for each option that a control of this kind does not have."""
    if words.kind not in MAP_KINDS:
        return []
    known = [*_OWN, *MAP_KINDS[words.kind].settings.model_fields]
    problems = []
    for name in words.options:
        if name not in known:
            what = f'{words.kind} has no option "{name}"'
            problems.append(Problem(where=words.where, what=what, fix=did_you_mean(name, known)))
    return problems


def controls_of(
    texts: Sequence[str],
    size: int,
    network_of: Callable[[Words], str],
) -> tuple[list[Control], dict[str, Path], list[Problem]]:
    """Return the controls, the folder of weights of each kind of map that has one, and all that is wrong.

    `network_of` finds the ControlNet of a control; it raises UnusableError where none is named.
    """
    controls = []
    weights = {}
    problems: list[Problem] = []
    for text in texts:
        words = take_apart(text)
        network = "?"
        try:
            network = network_of(words)
        except UnusableError as error:
            for defect in error.defects:
                problems.append(Problem(where=words.where, what=defect.what, fix=defect.fix))
        control, found = control_of(words, network, size)
        problems += found
        if control is not None:
            controls.append(control)
        if "weights" in words.options:
            weights[words.kind] = typed_path(words.options["weights"])
    return controls, weights, problems
