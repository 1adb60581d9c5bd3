"""Check what a job's text encoders will read, as far as the model's tokenizers lie on this machine."""

from collections.abc import Sequence

from orchestrator.contract.model_file import model_problem
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.contract.text_length import LengthProblems, length_problems
from orchestrator.contract.tokens import Tokenizer, holds_word
from orchestrator.datasets import Dataset
from orchestrator.errors import DatasetError, SpecError
from orchestrator.models.tokenizer import tokenizers_of
from orchestrator.planning.inputs import PreparedInputs
from orchestrator.secret_scan import looks_like, texts_within
from orchestrator.specs.base_model import Hub
from orchestrator.specs.job import JobSpec

_MOST_WARNINGS = 5
"""Captions that are warned of one by one."""
_MISSING_STEP = "caption these images, or take them out of the folder, then submit again"
_CAPTIONS_STEP = "fix the captions or remove them from the folder, then submit again"


def check_settings(spec: JobSpec) -> tuple[Problem, ...]:
    """Check the prompts and words of the recipe; return what is doubtful about them.

    Raises SpecError for words that do not suit the vocabulary, and for prompts so long that the new word is cut off.
    """
    recipe = spec.recipe
    settings = recipe.model_dump(mode="json")
    if holds_secret(settings):
        return ()
    tokenizers = tokenizers_for(spec)
    faults: list[Problem] = []
    doubts: list[Problem] = []
    for tokenizer in tokenizers:
        faults += recipe.vocabulary_faults(tokenizer)
        doubts += recipe.vocabulary_doubts(tokenizer)
    lengths = length_problems(tokenizers, recipe.texts, recipe.new_word)
    problems = [*_distinct(faults), *lengths.refused]
    if problems:
        raise SpecError(
            "The model would not learn the new word; nothing was started.",
            problems=problems,
            next_step="change what is named above, then submit again",
        )
    return (*_distinct(doubts), *lengths.warnings)


def check_captions(spec: JobSpec, prepared: PreparedInputs) -> tuple[Problem, ...]:
    """Check the captions; return those that are cut off.

    A caption replaces the prompt of the recipe. Raises DatasetError for captions that would teach nothing: without the
    new word, or so long that it is cut off.
    """
    if prepared.dataset is None:
        return _check_prompts(spec, prepared)
    if spec.recipe.dataset.needs_captions:
        _require_captions(prepared.dataset)
    tokenizers = tokenizers_for(spec)
    word = spec.recipe.new_word
    captions = []
    problems = []
    for image in prepared.dataset.images:
        file = str(image.file)
        caption = image.caption
        if caption is None or holds_secret(caption):
            continue
        captions.append((file, caption))
        if word is not None and not holds_word(tokenizers, caption, word):
            problem = Problem(
                where=file,
                what=f'its caption does not hold "{word.text}"',
                fix="add the word to the caption",
            )
            problems.append(problem)
    lengths = length_problems(tokenizers, captions, word)
    problems += lengths.refused
    if problems:
        message = "The captions would not teach the new word."
        raise DatasetError(message, next_step=_CAPTIONS_STEP, problems=problems)
    return _summed(lengths)


def _check_prompts(spec: JobSpec, prepared: PreparedInputs) -> tuple[Problem, ...]:
    """Return the prompts of a file that are cut off."""
    if not prepared.prompts or holds_secret(list(prepared.prompts)):
        return ()
    texts = [(f"prompt {number}", prompt) for number, prompt in enumerate(prepared.prompts, start=1)]
    lengths = length_problems(tokenizers_for(spec), texts, None)
    return _summed(lengths)


def _require_captions(dataset: Dataset) -> None:
    """Raise DatasetError with every image that has no caption."""
    problems = []
    for image in dataset.images:
        if not image.caption:
            file = str(image.file)
            caption_file = f"{image.file.stem}.txt"
            problems.append(Problem(where=file, what="has no caption", fix=f"write one into {caption_file}"))
    if problems:
        message = f"{counted(len(problems), 'image')} of {len(dataset.images)} cannot be trained on without a caption."
        raise DatasetError(message, next_step=_MISSING_STEP, problems=problems)


def tokenizers_for(spec: JobSpec) -> Sequence[Tokenizer]:
    """Return the tokenizers of a model on this machine, none for one on the Hub; raises SpecError.

    The check of the model finds all that is known to be wrong with their files: what is left was changed since, or the
    library refuses it.
    """
    if isinstance(spec.base_model, Hub):
        return ()
    try:
        return tokenizers_of(spec.base_model.folder)
    except ValueError as error:
        raise SpecError(
            "The base model cannot read texts; nothing was started.",
            problems=[model_problem(str(error))],
            next_step="mend the model as said above, or name another: --base-model MODEL",
        ) from error


def holds_secret(values: object) -> bool:
    """Return whether a text looks like a secret: it is refused elsewhere, and no message may repeat it."""
    return any(looks_like(text) for _, text in texts_within(values))


def _distinct(problems: Sequence[Problem]) -> list[Problem]:
    """Return each problem once: the tokenizers of a model mostly agree."""
    return list(dict.fromkeys(problems))


def _summed(lengths: LengthProblems) -> tuple[Problem, ...]:
    """Return the first few warnings, and one that counts the others."""
    warnings = lengths.warnings
    more = len(warnings) - _MOST_WARNINGS
    if more <= 0:
        return tuple(warnings)
    rest = Problem(
        where="captions",
        what=f"{more} more {'is' if more == 1 else 'are'} longer than the text encoder reads",
        fix="shorten all of them",
    )
    first = warnings[:_MOST_WARNINGS]
    return (*first, rest)
