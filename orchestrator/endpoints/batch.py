"""A file of requests, one a line, drawn by an endpoint into a folder: interrupted anywhere, the next run goes on.

An image's file is named by all that the image depends on, and is complete or absent: what is there is not drawn again.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestrator.contract.command_line import PROGRAM
from orchestrator.contract.generation import MOST_ADAPTERS, AdapterUse, Name, Prompt, SchedulerName, Seed
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.endpoints.local.host import LocalHost
from orchestrator.endpoints.requests import Request, checked_png, invoke_patiently
from orchestrator.errors import MachineError, SpecError
from orchestrator.storage import write_atomically

THREADS = 8
"""Requests at a time: the server draws them together."""
MOST_LINES = 100_000
MOST_BYTES = 2**27
INDEX_FILE = "index.json"
_PNG = "image/png"
_MOST_PROBLEMS = 20
_NAME_LETTERS = 32
_WRITE = 'write {"prompt": "what to draw"}'


class Line(BaseModel):
    """One image."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Prompt
    """What to draw."""
    negative_prompt: str | None = Field(None, max_length=2500)
    """What not to draw."""
    seed: Seed = 0
    """With the same seed, the same line draws the same image."""
    steps: int | None = None
    """Denoising steps; the endpoint chooses when left out."""
    guidance: float | None = None
    """Scale of classifier-free guidance; the endpoint chooses when left out."""
    size: int | None = None
    """Side of the square image, pixels; the endpoint chooses when left out."""
    scheduler: SchedulerName | None = None
    """How steps are taken."""
    adapters: tuple[AdapterUse, ...] = Field((), max_length=MOST_ADAPTERS)
    """`{"name": ..., "weight": ...}` for each, or "NAME:WEIGHT"."""
    embeddings: tuple[Name, ...] = Field((), max_length=MOST_ADAPTERS)
    """Names of learned words that the prompt uses."""

    @field_validator("adapters", mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [adapter_use(use) if isinstance(use, str) else use for use in value]

    @property
    def used(self) -> list[str]:
        """Names of all adapters that it is drawn with."""
        return [*(use.name for use in self.adapters), *self.embeddings]

    def request(self) -> Request:
        """Return the request for it; raises ValidationError."""
        values = self.model_dump(exclude={"prompt", "seed"})
        return Request.of({**values, "prompts": [self.prompt], "seeds": [self.seed]})


def adapter_use(text: str) -> dict[str, Any]:
    """Return the name and the weight of "NAME:WEIGHT" or "NAME"."""
    name, colon, weight = text.rpartition(":")
    if colon:
        try:
            return {"name": name, "weight": float(weight)}
        except ValueError:
            pass
    return {"name": text}


class Drawn(NamedTuple):
    """What a batch has come to."""

    files: list[Path]
    """Of each line; equal lines share one."""
    new: int
    """Images that were drawn now."""


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file; raises SpecError with what is wrong with them."""
    lines = []
    problems: list[Problem] = []
    for number, text in enumerate(_texts(path), start=1):
        if not text.strip():
            continue
        try:
            lines.append(_line(text))
        except ValidationError as error:
            found = problems_of(error, Line.model_fields, whole="the line")
            problems += [problem.model_copy(update={"where": f"line {number}: {problem.where}"}) for problem in found]
        except (ValueError, RecursionError):
            problems.append(
                Problem(
                    where=f"line {number}",
                    what="is no JSON",
                    fix=_WRITE,
                )
            )
        if len(problems) >= _MOST_PROBLEMS:
            break
    if not lines and not problems:
        problems = [
            Problem(
                where=path.name,
                what="has no lines",
                fix=_WRITE,
            )
        ]
    if len(lines) > MOST_LINES:
        problems = [
            Problem(
                where=path.name,
                what=f"has more than {MOST_LINES:,} lines",
                fix="cut it into several",
            )
        ]
    if problems:
        raise SpecError(
            "Nothing was drawn.",
            problems=problems,
            next_step=f"correct {path}",
        )
    return lines


def _texts(path: Path) -> list[str]:
    """Return the lines of a file; raises SpecError, and MachineError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MachineError(
            f"{path} cannot be read: {error.strerror}.",
            next_step="check the path",
        ) from error
    if len(content) > MOST_BYTES:
        raise SpecError(
            f"{path} is larger than {MOST_BYTES:,} bytes.",
            next_step="cut it into several files",
        )
    try:
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path} is not UTF-8 text.",
            next_step="save it as UTF-8",
        ) from error


def _line(text: str) -> Line:
    line = Line.model_validate(json.loads(text))
    line.request()
    return line


def draw_lines(
    lines: Sequence[Line],
    name: str,
    host: LocalHost,
    folder: Path,
    report: Callable[[int, int], None],
) -> Drawn:
    """Draw the images of lines that are not in the folder yet, and write the index; raises what the endpoint raises.

    `report` is told how many of how many images are there.
    """
    hashes = host.known_adapters(name)
    _require_known(lines, name, hashes)
    base = host.base_model(name)
    files = []
    missing = {}
    for line in lines:
        digest = _digest(line, base, hashes)
        file = folder / f"{digest}.png"
        files.append(file)
        if not file.exists():
            missing[file] = line
    whole = len(set(files))
    there = whole - len(missing)
    report(there, whole)
    for done in _draw_all(missing, name, host):
        report(there + done, whole)
    _write_index(folder, lines, files)
    return Drawn(files, len(missing))


def _draw_all(
    missing: Mapping[Path, Line],
    name: str,
    host: LocalHost,
) -> Iterator[int]:
    """Draw images, several at a time, and yield after each how many are done."""
    pool = ThreadPoolExecutor(THREADS)
    given_up = threading.Event()
    try:
        futures = []
        for file, line in missing.items():
            futures.append(pool.submit(_draw, line, name, host, file, given_up.wait))
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            yield done
    finally:  # also after a failure and Ctrl-C: those that have begun are drawn, and no more begin
        given_up.set()
        pool.shutdown(cancel_futures=True)


def _write_index(
    folder: Path,
    lines: Sequence[Line],
    files: Sequence[Path],
) -> None:
    """Write which line is in which file."""
    entries = []
    for line, file in zip(lines, files, strict=True):
        asked = line.model_dump(mode="json", exclude_defaults=True)
        entries.append({"file": file.name, **asked})
    text = json.dumps(entries, indent=2)
    write_atomically(folder / INDEX_FILE, f"{text}\n")


def _draw(
    line: Line,
    name: str,
    host: LocalHost,
    file: Path,
    wait: Callable[[float], bool],
) -> None:
    """Draw the image of a line into its file."""
    body = line.request().body()
    answer = invoke_patiently(host, name, body, _PNG, wait)
    png = checked_png(answer.content)
    write_atomically(file, png)


def _require_known(
    lines: Sequence[Line],
    name: str,
    known: Mapping[str, str],
) -> None:
    """Raise SpecError unless an endpoint has every adapter of the lines."""
    problems: dict[str, Problem] = {}
    for line in lines:
        for adapter in line.used:
            if adapter in known or adapter in problems:
                continue
            problems[adapter] = Problem(
                where=adapter,
                what=f"the endpoint {name} has no such adapter",
                fix=did_you_mean(adapter, known),
            )
    if problems:
        count = counted(len(problems), "adapter")
        raise SpecError(
            f"{count} of the lines cannot be used. Nothing was drawn.",
            problems=list(problems.values()),
            next_step=f"add what is missing: {PROGRAM} endpoints update {name} --add NAME",
        )


def _digest(
    line: Line,
    base: str,
    hashes: Mapping[str, str],
) -> str:
    """Return the name of an image: the hash of all that it depends on."""
    facts = {
        "base": base,
        "line": line.model_dump(
            mode="json",
            exclude={"adapters", "embeddings"},
        ),
        "adapters": [hashes[adapter] for adapter in line.used],
        "weights": [use.weight for use in line.adapters],
    }
    whole = json.dumps(facts, sort_keys=True)
    sha256 = hashlib.sha256(whole.encode()).hexdigest()
    return sha256[:_NAME_LETTERS]
