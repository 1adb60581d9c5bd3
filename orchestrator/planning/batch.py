"""Plan a batch: from lines of a file to samples, and what its job reads. What can be wrong is found here, unpaid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.adapters.usage import DrawingSettings, drawing_settings, own_word
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, MANIFEST_FILE, PIVOTAL, AdapterManifest
from orchestrator.contract.batch import ADAPTERS_CHANNEL, ALONE, SAMPLES_CHANNEL, TOGETHER, BatchSamples
from orchestrator.contract.batch_result import Sample, SampleAdapter
from orchestrator.contract.generation import AdapterUse, Generation
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.contract.text_length import length_problems
from orchestrator.contract.words import NewWord, occurrences, with_word
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.planning.texts import holds_secret, tokenizers_for
from orchestrator.specs.batch_file import Line
from orchestrator.specs.batch_line import AskedLine, Claims, check_line, with_left_out
from orchestrator.specs.job import JobSpec
from orchestrator.storage.tree import Tree, tree_of_files, tree_of_folder
from orchestrator.terminal import printable

_DATA = "data"
_MOST_WARNINGS = 5
"""Lines that are warned of one by one."""


class BatchAdapter(NamedTuple):
    """An adapter that lines draw with."""

    name: str
    """As it was named."""
    folder: Path
    """Where its files are on this machine."""
    manifest: AdapterManifest
    word: NewWord | None
    """The word that a prompt has to hold; None when any prompt shows what was learned."""

    @classmethod
    def of(cls, name: str, folder: Path, manifest: AdapterManifest) -> "BatchAdapter":
        """Return an adapter with its word."""
        return cls(name, folder, manifest, own_word(manifest))


class Usual(NamedTuple):
    """How images are drawn of which a line does not say it."""

    base: DrawingSettings
    """Without an adapter."""
    chosen: Mapping[str, Any]
    """What was chosen for all of them: steps, guidance, size, seed, n, negative_prompt, scheduler."""

    def of(self, adapters: Sequence[BatchAdapter]) -> dict[str, Any]:
        """Return the settings for adapters: as the first is drawn with by itself, unless something was chosen."""
        settings = self.base
        if adapters:
            settings = drawing_settings(adapters[0].manifest)
        return {**settings._asdict(), **self.chosen}


@dataclass
class Batch:
    """What a file asks for."""

    base_model: str
    """Which one is meant, by its weights or its commit: a part of each image's id."""
    samples: list[Sample] = field(default_factory=list)
    """Its images, in the order of the lines."""
    problems: list[Problem] = field(default_factory=list)
    """Why some cannot be drawn."""
    texts: dict[NewWord | None, dict[str, str]] = field(default_factory=dict)
    """Prompts by their lines, for each word that has to be read."""
    lacking: dict[str, list[int]] = field(default_factory=dict)
    """Lines whose prompt lacks an adapter's word, by the adapter's name."""
    claims: Claims = field(default_factory=Claims)
    """What its lines have asked for so far."""

    def refuse(self, where: str, what: str, fix: str = "") -> None:
        """Add a problem."""
        problem = Problem(where=where, what=what, fix=fix)
        self.problems.append(problem)

    def add(self, line: Line, sample: Sample) -> None:
        """Add a sample, or the problem that it, or its name, is there already."""
        problem = self.claims.problem_of(line, sample.id, sample.name)
        if problem is not None:
            self.problems.append(problem)
            return
        self.samples.append(sample)

    def read(self, word: NewWord | None, where: str, text: str) -> None:
        """Note a text that text encoders have to read, with a word in it if there is one."""
        texts = self.texts.setdefault(word, {})
        texts[where] = text


def unusable_adapters(asked: Sequence[AskedLine], faults: Mapping[str, str]) -> list[Problem]:
    """Return the problems of adapters that cannot be used: `faults` says of each name why."""
    numbers: dict[str, list[int]] = {}
    for line, uses in asked:
        for use in uses:
            named_in = numbers.setdefault(use.name, [])
            named_in.append(line.number)
    problems = []
    for name, what in faults.items():
        where = lines_text(numbers[name])
        problems.append(Problem(where=where, what=what))
    return problems


def lines_text(numbers: Sequence[int]) -> str:
    """Return lines as messages name them: "line 3", "lines 3, 4, 5 and 20 more"."""
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    first = map(str, numbers[:_MOST_WARNINGS])
    shown = ", ".join(first)
    more = len(numbers) - _MOST_WARNINGS
    if more > 0:
        shown = f"{shown} and {more} more"
    return f"lines {shown}"


def batch_of(
    asked: Sequence[AskedLine],
    adapters: Mapping[str, BatchAdapter],
    usual: Usual,
    base_model: str,
) -> Batch:
    """Return the samples of lines and what is wrong with them.

    Lines with an adapter that is not in `adapters`, which was reported already, are checked as far as they can be.
    """
    batch = Batch(base_model)
    for line, uses in asked:
        used = _known(uses, adapters)
        usual_settings = usual.of(used)
        settings = with_left_out(line, usual_settings)
        checked, problems = check_line(line, uses, settings)
        batch.problems += problems
        is_known = len(used) == len(uses)
        misfit = ""
        if is_known:
            misfit = _misfit(uses, used)
        if misfit:
            batch.refuse(f"{line.where}, adapters", misfit)
        if checked is None or not is_known:
            continue
        too_many = batch.claims.problem_of_number(line, len(checked.seeds))
        if too_many is not None:
            batch.problems.append(too_many)
            break
        fields = _fields(batch, line, checked.generation, used)
        for name, seed in zip(checked.names, checked.seeds, strict=True):
            fields["seed"] = seed
            sample = Sample.of(base_model, fields, name)
            batch.add(line, sample)
    return batch


def _known(uses: Sequence[AdapterUse], adapters: Mapping[str, BatchAdapter]) -> list[BatchAdapter]:
    """Return the adapters of a line that are among `adapters`."""
    known = []
    for use in uses:
        adapter = adapters.get(use.name)
        if adapter is not None:
            known.append(adapter)
    return known


def _misfit(uses: Sequence[AdapterUse], used: Sequence[BatchAdapter]) -> str:
    """Return why adapters cannot draw together as they are asked to; empty when they can."""
    hashes = set()
    words = set()
    beside_words = 0
    for adapter in used:
        manifest = adapter.manifest
        if manifest.kind != EMBEDDING:
            beside_words += 1
        if manifest.files_sha256 in hashes:
            return "the same adapter is named twice; add its weights up"
        hashes.add(manifest.files_sha256)
        if manifest.kind not in (EMBEDDING, PIVOTAL):
            continue
        if manifest.learned_word in words:
            return "two of them have learned the same word"
        words.add(manifest.learned_word)
    is_alone = beside_words <= 1
    for use, adapter in zip(uses, used, strict=True):
        misfit = _misfit_of_one(use, adapter.manifest, alone=is_alone)
        if misfit:
            return misfit
    return ""


def _misfit_of_one(use: AdapterUse, manifest: AdapterManifest, *, alone: bool) -> str:
    """Return why an adapter cannot draw as it is asked to, `alone` or beside others than learned words."""
    kind = manifest.kind
    name = printable(use.name)
    is_rotation = manifest.config.get("tuner") == "oft"
    is_whole = kind == EMBEDDING or is_rotation
    if kind == CONTROLNET:
        return f'"{name}" is a ControlNet, which follows a picture, and a batch shows none'
    if kind not in ALONE | TOGETHER:
        return f'"{name}" is of the kind "{kind}", which this version cannot draw with'
    if is_whole and use.weight != 1:
        return f'"{name}" has no strength other than 1'
    if kind in ALONE and not alone:
        return f'"{name}" is of the kind "{kind}", which draws beside learned words only'
    return ""


def _fields(
    batch: Batch,
    line: Line,
    asked: Generation,
    used: Sequence[BatchAdapter],
) -> dict[str, Any]:
    """Return what the samples of a line have in common, new words in their own spelling; note what has to be read."""
    prompt = asked.prompts[0]
    words: list[NewWord] = []
    for adapter in used:
        word = adapter.word
        if word is None:
            continue
        words.append(word)
        prompt = with_word(prompt, word)
        places = occurrences(prompt, word)
        if not any(places):
            lacking = batch.lacking.setdefault(adapter.name, [])
            lacking.append(line.number)
    for word in words or (None,):
        batch.read(word, line.where, prompt)
    if asked.negative_prompt:
        where = f"{line.where}, negative_prompt"
        batch.read(None, where, asked.negative_prompt)
    adapters = []
    for use, adapter in zip(asked.adapters, used, strict=True):
        sha256 = adapter.manifest.files_sha256
        drawn_with = SampleAdapter(name=use.name, sha256=sha256, weight=use.weight)
        adapters.append(drawn_with)
    return {
        "prompt": prompt,
        "negative_prompt": asked.negative_prompt,
        "steps": asked.steps,
        "guidance": asked.guidance,
        "width": asked.shape.width,
        "height": asked.shape.height,
        "scheduler": asked.scheduler,
        "adapters": adapters,
    }


def prepare_batch(
    batch: Batch,
    adapters: Sequence[BatchAdapter],
    asked: Sequence[AskedLine],
    staging: Path,
) -> PreparedInputs:
    """Write what the job reads to folders of `staging`, which has to exist until the trees of the plan are stored."""
    samples = BatchSamples(samples=tuple(batch.samples))
    samples_folder = staging / SAMPLES_CHANNEL
    samples.write(samples_folder)
    trees: dict[str, Tree] = {}
    trees[SAMPLES_CHANNEL] = tree_of_folder(_DATA, samples_folder)
    files = {}
    for adapter in adapters:
        manifest = adapter.manifest
        for name in [*manifest.files, MANIFEST_FILE]:
            key = f"{manifest.files_sha256}/{name}"
            files[key] = adapter.folder / name
    if files:
        trees[ADAPTERS_CHANNEL] = tree_of_files(_DATA, files)
    texts = {}
    for line, _ in asked:
        texts[line.where] = line.values
    return PreparedInputs(trees=trees, texts=texts)


def check_texts(spec: JobSpec, batch: Batch) -> tuple[list[Problem], list[Problem]]:
    """Return prompts whose new word is cut off, which show nothing, and warnings of those that lose other words."""
    refused: list[Problem] = []
    cut_off: list[Problem] = []
    tokenizers = tokenizers_for(spec)
    for word, texts in batch.texts.items():
        lengths = length_problems(tokenizers, texts.items(), word)
        refused += _public(lengths.refused, texts)
        cut_off += _public(lengths.warnings, texts)
    warnings = cut_off[:_MOST_WARNINGS]
    more = len(cut_off) - len(warnings)
    if more > 0:
        rest = Problem(
            where="further lines",
            what=f"{counted(more, 'more prompt')} longer than the text encoder reads",
            fix="shorten them",
        )
        warnings.append(rest)
    for name, numbers in batch.lacking.items():
        lacks = Problem(
            where=lines_text(numbers),
            what=f'the prompt lacks the word that shows what "{printable(name)}" has learned',
        )
        warnings.append(lacks)
    return refused, warnings


def _public(problems: Sequence[Problem], texts: Mapping[str, str]) -> list[Problem]:
    """Return problems without those of texts that look like secrets: these are refused elsewhere, and not repeated."""
    kept = []
    for problem in problems:
        text = texts[problem.where]
        if not holds_secret(text):
            kept.append(problem)
    return kept
