"""Plan a batch: from lines of a file to samples, and what its job reads. What can be wrong is found here, unpaid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestrator.adapters.usage import DrawingSettings, drawing_settings, own_word
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, MANIFEST_FILE, PIVOTAL, AdapterManifest
from orchestrator.contract.batch import ADAPTERS_CHANNEL, ALONE, MOST_IMAGES, SAMPLES_CHANNEL, TOGETHER, BatchSamples
from orchestrator.contract.batch_result import Sample, SampleAdapter
from orchestrator.contract.generation import MAX_SEED, AdapterUse, Generation
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem, did_you_mean, problems_of
from orchestrator.contract.text_length import length_problems
from orchestrator.contract.words import NewWord, occurrences, with_word
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.texts import holds_secret, tokenizers_for
from orchestrator.specs.batch_file import FIELDS, Line
from orchestrator.specs.job import JobSpec
from orchestrator.storage.tree import Tree, tree_of_files, tree_of_folder
from orchestrator.terminal import printable

_DATA = "data"
_MOST_WARNINGS = 5
"""Lines that are warned of one by one."""
_NAMES = {"prompts": "prompt", "negative_prompt": "negative", "seeds": "seed"}
"""Fields of a generation, and what a line calls them."""
_PLAUSIBLE = {"prompt": "a", "steps": 1, "guidance": 1, "size": 64, "seed": 0}
_ID = "letters, digits, dots, hyphens and underscores, 100 at most, the first a letter or a digit"


class BatchAdapter(NamedTuple):
    """An adapter that lines draw with."""

    name: str
    """As it was named."""
    folder: Path
    """Where its files are on this machine."""
    manifest: AdapterManifest

    @property
    def word(self) -> NewWord | None:
        """The word that a prompt has to hold; None when any prompt shows what was learned."""
        return own_word(self.manifest)


class AskedLine(NamedTuple):
    """A line with the adapters that it names."""

    line: Line
    uses: tuple[AdapterUse, ...]
    """Of its own, or else of the command."""


class Usual(NamedTuple):
    """How images are drawn of which a line does not say it."""

    base: DrawingSettings
    """Without an adapter."""
    chosen: Mapping[str, Any]
    """What was chosen for all of them: steps, guidance, size, seed, n, negative, scheduler."""

    def of(self, adapter: BatchAdapter | None) -> dict[str, Any]:
        """Return the settings for an adapter: as it is drawn with by itself, unless something was chosen."""
        settings = self.base
        if adapter is not None:
            settings = drawing_settings(adapter.manifest)
        return {**settings._asdict(), **self.chosen}


@dataclass
class Batch:
    """What a file asks for."""

    samples: list[Sample] = field(default_factory=list)
    """Its images, in the order of the lines."""
    problems: list[Problem] = field(default_factory=list)
    """Why some cannot be drawn."""
    texts: dict[NewWord | None, dict[str, str]] = field(default_factory=dict)
    """Prompts by their lines, for each word that has to be read."""
    lacking: dict[str, list[int]] = field(default_factory=dict)
    """Lines whose prompt lacks an adapter's word, by the adapter's name."""


def asked_lines(lines: Sequence[Line], usual: Sequence[str]) -> tuple[list[AskedLine], list[Problem]]:
    """Return lines with the adapters that they name, those of `usual` where a line names none, and what is wrong."""
    asked = []
    problems = []
    for line in lines:
        try:
            uses = _uses(line.values.get("adapters", list(usual)))
        except ValueError as error:
            problems.append(Problem(where=f"{line.where}, adapters", what=str(error)))
            uses = ()
        asked.append(AskedLine(line, uses))
    return asked, problems


def _uses(value: Any) -> tuple[AdapterUse, ...]:
    """Return adapters with their weights: "dog", "dog:0.8", {"name": "dog", "weight": 0.8}, or a list of these."""
    items = value if isinstance(value, list) else [value]
    uses = []
    for item in items:
        fields = item
        if isinstance(item, str):
            name, colon, weight = item.rpartition(":")
            fields = {"name": item}
            if colon and _is_number(weight):
                fields = {"name": name, "weight": float(weight)}
        try:
            uses.append(AdapterUse.model_validate(fields))
        except ValidationError as error:
            found = problems_of(error, AdapterUse.model_fields, whole="an adapter")
            raise ValueError("; ".join(problem.render() for problem in found)) from error
    return tuple(uses)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unknown_adapters(asked: Sequence[AskedLine], faults: Mapping[str, str]) -> list[Problem]:
    """Return the problems of adapters that cannot be used: `faults` says of each name why."""
    problems = []
    for name, what in faults.items():
        numbers = [line.number for line, uses in asked if name in {use.name for use in uses}]
        problems.append(Problem(where=lines_text(numbers), what=what))
    return problems


def check_chosen(chosen: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with settings that were chosen for all lines, by their options."""
    values: dict[str, Any] = {**_PLAUSIBLE, **chosen}
    line = Line(1, {"prompt": "a"})
    _, problems = _checked(line, (), values)
    found = []
    for problem in problems:
        option = problem.where.removeprefix(f"{line.where}, ").removeprefix(line.where)
        found.append(problem.model_copy(update={"where": f"--{option}" if option else ""}))
    return found


def lines_text(numbers: Sequence[int]) -> str:
    """Return lines as messages name them: "line 3", "lines 3, 4, 5 and 20 more"."""
    shown = ", ".join(map(str, numbers[:_MOST_WARNINGS]))
    more = len(numbers) - _MOST_WARNINGS
    if more > 0:
        shown = f"{shown} and {more} more"
    return f"{'line' if len(numbers) == 1 else 'lines'} {shown}"


def batch_of(
    asked: Sequence[AskedLine],
    adapters: Mapping[str, BatchAdapter],
    usual: Usual,
    base_model: str,
) -> Batch:
    """Return the samples of lines and what is wrong with them; `base_model` says which one is meant, for their ids.

    Lines with an adapter that is not in `adapters`, which was reported already, are checked as far as they can be.
    """
    batch = Batch()
    names: dict[str, int] = {}
    ids: dict[str, int] = {}
    misfits: dict[tuple[AdapterUse, ...], str] = {}
    total = 0
    for line, uses in asked:
        if uses not in misfits:
            misfits[uses] = _misfit(uses, adapters)
        if misfits[uses]:
            batch.problems.append(Problem(where=f"{line.where}, adapters", what=misfits[uses]))
        used = [adapters[use.name] for use in uses if use.name in adapters]
        settings = {**usual.of(used[0] if used else None), **line.values}
        checked, problems = _checked(line, uses, settings)
        batch.problems += problems
        if checked is None:
            continue
        total += len(checked.seeds)
        if total > MOST_IMAGES:
            what = f"more than {MOST_IMAGES} images are asked for up to here; split the file into several batches"
            batch.problems.append(Problem(where=line.where, what=what))
            break
        drawn = _with_words(batch, line, checked.generation, used)
        if len(used) < len(uses):
            continue
        fields = {**drawn, "adapters": [_sample_adapter(use, adapters) for use in uses]}
        for name, seed in zip(checked.names, checked.seeds, strict=True):
            sample = Sample.of(base_model, {**fields, "seed": seed}, name)
            _add(batch, line, sample, names, ids)
    return batch


class _Checked(NamedTuple):
    """A line whose values are of their types and within their limits."""

    generation: Generation
    seeds: Sequence[int]
    names: Sequence[str]
    """Name of each image."""


def _checked(
    line: Line, uses: Sequence[AdapterUse], settings: Mapping[str, Any]
) -> tuple[_Checked | None, list[Problem]]:
    """Return a line with its settings, or None and what is wrong with it."""
    problems = []
    for name in line.values:
        if name not in FIELDS:
            fix = did_you_mean(name, FIELDS)
            problems.append(Problem(where=line.where, what=f'there is no field "{printable(name)}"', fix=fix))
    seeds: Sequence[int] = [0]
    names: Sequence[str] = [""]
    try:
        seeds = _seeds(line.values, settings)
        names = _names(line, len(seeds))
    except ValueError as error:
        problems.append(Problem(where=line.where, what=str(error)))
    values = {
        "prompts": [settings.get("prompt", "")],
        "negative_prompt": settings.get("negative"),
        "seeds": [seeds[0]],
        "steps": settings["steps"],
        "guidance": settings["guidance"],
        "size": settings["size"],
        "scheduler": settings.get("scheduler"),
        "adapters": uses,
    }
    try:
        generation = Generation.model_validate(values)
    except ValidationError as error:
        for problem in problems_of(error):
            field_name = problem.where.partition("[")[0]
            where = f"{line.where}, {_NAMES.get(field_name, problem.where)}"
            problems.append(problem.model_copy(update={"where": where}))
        return None, problems
    if problems:
        return None, problems
    return _Checked(generation, seeds, names), []


def _seeds(own: Mapping[str, Any], settings: Mapping[str, Any]) -> Sequence[int]:
    """Return the seed of each image of a line; raises ValueError with the reason for what is none."""
    if "seeds" in own:
        if "seed" in own or "n" in own:
            raise ValueError("says seeds, and seed or n beside it; say one of them")
        seeds = own["seeds"]
        if not isinstance(seeds, list) or not seeds:
            raise ValueError("seeds should be a list of whole numbers")
    else:
        first = settings["seed"]
        count = settings.get("n", 1)
        if not _is_whole(count) or not 1 <= count <= MOST_IMAGES:
            raise ValueError(f"n should be from 1 to {MOST_IMAGES}, not {_shown(count)}")
        seeds = range(first, first + count) if _is_whole(first) else [first]
    for seed in (seeds[0], seeds[-1]) if isinstance(seeds, range) else seeds:
        if not _is_whole(seed) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"a seed should be a whole number from 0 to {MAX_SEED}, not {_shown(seed)}")
    return list(seeds)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Return what somebody wrote, shortened."""
    return printable(repr(value)[:50])


def _names(line: Line, count: int) -> Sequence[str]:
    """Return the name of each image of a line: its id or else its number, with numbers for several images.

    Raises ValueError with the reason for an id that cannot be one.
    """
    name = line.values.get("id", f"{line.number:05}")
    if not isinstance(name, str) or not _is_id(name):
        raise ValueError(f"id should be {_ID}; not {_shown(name)}")
    if count == 1:
        return [name]
    digits = len(str(count))
    return [f"{name}-{number:0{digits}}" for number in range(1, count + 1)]


def _is_id(text: str) -> bool:
    """Whether a text can name a file on every system."""
    plain = text.isascii() and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return plain and text[0].isalnum() and len(text) <= 100  # noqa: PLR2004 - as _ID says


def _misfit(uses: Sequence[AdapterUse], adapters: Mapping[str, BatchAdapter]) -> str:
    """Return why adapters cannot draw together as they are asked to; empty when they can."""
    found = [(use, adapters[use.name].manifest) for use in uses if use.name in adapters]
    for use, manifest in found:
        others = [other for _, other in found if other is not manifest and other.kind != EMBEDDING]
        misfit = _misfit_of_one(use, manifest, alone=not others)
        if misfit:
            return misfit
    hashes = {manifest.files_sha256 for _, manifest in found}
    if len(hashes) < len(found):
        return "the same adapter is named twice; add its weights up"
    words = [manifest.learned_word for _, manifest in found if manifest.kind in (EMBEDDING, PIVOTAL)]
    if len(set(words)) < len(words):
        return "two of them have learned the same word"
    return ""


def _misfit_of_one(use: AdapterUse, manifest: AdapterManifest, *, alone: bool) -> str:
    """Return why an adapter cannot draw as it is asked to, `alone` or beside others than learned words."""
    kind = manifest.kind
    name = printable(use.name)
    if kind == CONTROLNET:
        return f'"{name}" is a ControlNet, which follows a picture, and a batch shows none'
    if kind not in ALONE | TOGETHER:
        return f'"{name}" is of the kind "{kind}", which this version cannot draw with'
    if use.weight != 1 and (kind == EMBEDDING or manifest.config.get("tuner") == "oft"):
        return f'"{name}" has no strength other than 1'
    if kind in ALONE and not alone:
        return f'"{name}" is of the kind "{kind}", which draws beside learned words only'
    return ""


def _sample_adapter(use: AdapterUse, adapters: Mapping[str, BatchAdapter]) -> SampleAdapter:
    return SampleAdapter(name=use.name, sha256=adapters[use.name].manifest.files_sha256, weight=use.weight)


def _with_words(batch: Batch, line: Line, asked: Generation, used: Sequence[BatchAdapter]) -> dict[str, Any]:
    """Return the fields of a line's samples, new words in their own spelling, and note what has to be read of it."""
    prompt = asked.prompts[0]
    for adapter in used:
        word = adapter.word
        if word is None:
            continue
        prompt = with_word(prompt, word)
        if not any(occurrences(prompt, word)):
            batch.lacking.setdefault(adapter.name, []).append(line.number)
    for word in {adapter.word for adapter in used} or {None}:
        batch.texts.setdefault(word, {})[line.where] = prompt
    negative = asked.negative_prompt
    if negative:
        batch.texts.setdefault(None, {})[f"{line.where}, negative"] = negative
    return {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": asked.steps,
        "guidance": asked.guidance,
        "size": asked.size,
        "scheduler": asked.scheduler,
    }


def _add(batch: Batch, line: Line, sample: Sample, names: dict[str, int], ids: dict[str, int]) -> None:
    """Add a sample, or the problem that it, or its name, is there already; both dictionaries hold lines."""
    if sample.id in ids:
        what = f"asks for an image of line {ids[sample.id]} again: the same prompt, seed and settings"
        batch.problems.append(Problem(where=line.where, what=what, fix="give it another seed, or leave it out"))
        return
    ids[sample.id] = line.number
    name = sample.name.casefold()
    if name in names:
        what = f'the id "{sample.name}" is that of line {names[name]} too'
        batch.problems.append(Problem(where=line.where, what=what, fix="give each line an id of its own"))
        return
    names[name] = line.number
    batch.samples.append(sample)


def prepare_batch(
    batch: Batch,
    adapters: Sequence[BatchAdapter],
    asked: Sequence[AskedLine],
    staging: Path,
) -> PreparedInputs:
    """Write what the job reads to folders of `staging`, which has to exist until the trees of the plan are stored."""
    BatchSamples(samples=tuple(batch.samples)).write(staging / SAMPLES_CHANNEL)
    trees: dict[str, Tree] = {SAMPLES_CHANNEL: tree_of_folder(_DATA, staging / SAMPLES_CHANNEL)}
    files = {}
    for adapter in adapters:
        for name in [*adapter.manifest.files, MANIFEST_FILE]:
            files[f"{adapter.manifest.files_sha256}/{name}"] = adapter.folder / name
    if files:
        trees[ADAPTERS_CHANNEL] = tree_of_files(_DATA, files)
    return PreparedInputs(trees=trees, texts={line.where: line.values for line, _ in asked})


def check_texts(spec: JobSpec, batch: Batch) -> tuple[list[Problem], list[Problem]]:
    """Return prompts whose new word is cut off, which show nothing, and warnings of those that lose other words."""
    refused: list[Problem] = []
    warnings: list[Problem] = []
    tokenizers = tokenizers_for(spec)
    for word, texts in batch.texts.items():
        public = [(where, text) for where, text in texts.items() if not holds_secret(text)]
        lengths = length_problems(tokenizers, public, word)
        refused += lengths.refused
        warnings += lengths.warnings
    warnings = list(dict.fromkeys(warnings))
    more = len(warnings) - _MOST_WARNINGS
    if more > 0:
        what = f"{counted(more, 'more prompt')} longer than the text encoder reads"
        warnings = [*warnings[:_MOST_WARNINGS], Problem(where="further lines", what=what, fix="shorten them")]
    for name, numbers in batch.lacking.items():
        what = f'the prompt lacks the word that shows what "{printable(name)}" has learned'
        warnings.append(Problem(where=lines_text(numbers), what=what))
    return refused, warnings
