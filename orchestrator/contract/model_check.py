"""Whether a base model can be trained, from its JSON files and the headers of its weights: no tensor is read.

The client checks a model before anything is stored or started, and a job checks it again before it loads it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from orchestrator.contract.families import INDEX_FILE, Family, family_in
from orchestrator.contract.model_configs import (
    SCHEDULERS,
    AutoencoderConfig,
    ClipConfig,
    Config,
    DenoiserConfig,
    PreprocessorConfig,
    SchedulerConfig,
    TextEncoderConfig,
    TokenizerConfig,
)
from orchestrator.contract.model_file import (
    ANOTHER,
    ONE_MODEL,
    ModelFileError,
    model_problem,
)
from orchestrator.contract.model_fit import (
    Denoiser,
    Part,
    TextEncoder,
    autoencoder_problems,
    channel_problems,
    clip_problems,
    denoiser_problems,
    pooled_problems,
    text_encoder_problems,
    width_problems,
)
from orchestrator.contract.model_layout import (
    CLIP_FOLDER,
    Names,
    Weights,
    find_weights,
    missing_parts,
    model_files,
    names_of,
    read_files,
)
from orchestrator.contract.model_vocabulary import (
    BOTH,
    Objects,
    embedding_problems,
    token_problems,
    tokenizer_file_problems,
    tokenizer_problems,
)
from orchestrator.contract.problem import Problem, problems_of
from orchestrator.contract.safetensors_header import Header, TensorEntry

_Known = TypeVar("_Known", bound=Config)
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion", "stable_diffusion_xl")
"""Where the classes of parts are; anything else is code that came with the model."""
_WITHOUT_CLIP = f"remove {CLIP_FOLDER}/, which only measures the figures"
_NO_WEIGHT_MAP = "has no weight_map of tensors and files"


class _Contents(NamedTuple):
    """What a model's files hold, as far as they can be read."""

    names: Names
    """Names of all files, the unreadable ones too."""
    objects: Objects
    """JSON file to what it holds."""
    headers: Mapping[str, Header]
    """Weight file to its tensors."""
    texts: Mapping[str, str]
    """Any other file to its text."""


def model_problems(folder: Path, names: Names = ()) -> list[Problem]:
    """Return all that is wrong with the model in a folder; empty when it can be trained.

    `names` are those of all its files, for a folder that has only the small ones so far: weights are not checked then.
    """
    index = folder / INDEX_FILE
    try:
        family = family_in(index, "it")
    except ModelFileError as error:
        return [model_problem(error.what, error.fix)]
    contents, problems = _read(folder, names or names_of(folder))
    problems += missing_parts(family, contents.names)
    problems += _index_problems(family, contents)
    problems += _part_problems(family, contents)
    return problems


def _read(folder: Path, names: Names) -> tuple[_Contents, list[Problem]]:
    """Read every file that a run reads; return what they hold, and which of them are damaged."""
    objects, headers, texts, damaged = read_files(folder, model_files(folder))
    problems = []
    for name, error in damaged.items():
        problems.append(model_problem(f"{name} {error.what}", error.fix))
    contents = _Contents(names, objects, headers, texts)
    return contents, problems


def _part_problems(family: Family, contents: _Contents) -> list[Problem]:
    """Return what is wrong with each part, and with how they fit together."""
    problems: list[Problem] = []
    denoiser = _part(family.denoiser, DenoiserConfig, contents, problems)
    autoencoder = _part("vae", AutoencoderConfig, contents, problems)
    encoders: dict[str, TextEncoder] = {}
    for part, tokenizer in zip(family.text_encoders, family.tokenizers, strict=True):
        encoder = _part(part, TextEncoderConfig, contents, problems)
        if encoder is not None:
            encoders[part] = encoder
            class_name = family.classes[part]
            pools = class_name.endswith("WithProjection")
            problems += text_encoder_problems(encoder, pools=pools)
            problems += embedding_problems(tokenizer, contents.objects, encoder)
        problems += tokenizer_problems(tokenizer, contents.objects, contents.texts)
        problems += token_problems(tokenizer, contents.objects)
        _config(tokenizer, "tokenizer_config.json", TokenizerConfig, contents, problems)
        problems += tokenizer_file_problems(tokenizer, contents.names)
    first = family.text_encoders[0]
    problems += _clip_problems(family, contents, encoders.get(first))
    _config("scheduler", "scheduler_config.json", SchedulerConfig, contents, problems)
    if denoiser is not None:
        problems += _architecture_problems(family, denoiser)
        problems += denoiser_problems(denoiser)
    if autoencoder is not None:
        problems += autoencoder_problems(autoencoder)
    if denoiser is None:
        return problems
    if autoencoder is not None:
        problems += channel_problems(denoiser, autoencoder)
    has_all_encoders = len(encoders) == len(family.text_encoders)
    if has_all_encoders:
        read = list(encoders.values())
        problems += width_problems(denoiser, read)
        told = denoiser.config.addition_embed_type
        if told is not None and told == family.addition_embed_type:
            problems += pooled_problems(denoiser, read[-1])
    return problems


def _clip_problems(
    family: Family,
    contents: _Contents,
    encoder: TextEncoder | None,
) -> list[Problem]:
    """Return what is wrong with the CLIP that the model is judged by.

    It reads with the first tokenizer, as the text encoder does: what that cannot take either is reported there.
    """
    problems: list[Problem] = []
    _config(CLIP_FOLDER, "preprocessor_config.json", PreprocessorConfig, contents, problems)
    clip = _part(CLIP_FOLDER, ClipConfig, contents, problems)
    if clip is None:
        return problems
    problems += clip_problems(clip)
    tokenizer = family.tokenizers[0]
    if encoder is not None and any(embedding_problems(tokenizer, contents.objects, encoder)):
        return problems
    reader = Part(CLIP_FOLDER, clip.config.text_config, None)
    fix = f"{_WITHOUT_CLIP}, or {BOTH}"
    problems += embedding_problems(tokenizer, contents.objects, reader, fix)
    return problems


def _part(
    name: str,
    config_type: type[_Known],
    contents: _Contents,
    problems: list[Problem],
) -> Part[_Known] | None:
    """Return a part, or None without a usable configuration; adds what is wrong with its configuration and index."""
    tensors = _tensors(name, contents, problems)
    config = _config(name, "config.json", config_type, contents, problems)
    if config is None:
        return None
    return Part(name, config, tensors)


def _config(
    part: str,
    file: str,
    config_type: type[_Known],
    contents: _Contents,
    problems: list[Problem],
) -> _Known | None:
    """Return a configuration, or None without a usable one; adds what is wrong with its values."""
    name = f"{part}/{file}"
    values = contents.objects.get(name)
    if values is None:  # missing or unreadable, which is reported
        return None
    try:
        return config_type.model_validate(values)
    except ValidationError as error:
        fix = ANOTHER
        if part == CLIP_FOLDER:
            fix = f"{_WITHOUT_CLIP}, or {ANOTHER}"
        for problem in problems_of(error, whole=""):
            what = f"{problem.where} {problem.what}".strip()
            problems.append(model_problem(f"{name}: {what}", fix))
        return None


def _tensors(part: str, contents: _Contents, problems: list[Problem]) -> Header | None:
    """Return the tensors of a part's weight files, None when they cannot be read; adds what is wrong with an index."""
    weights = find_weights(part, contents.names)
    if weights is None:
        return None
    tensors: dict[str, TensorEntry] = {}
    for file in weights.files:
        header = contents.headers.get(f"{part}/{file}")
        if header is None:
            return None
        tensors.update(header)
    if weights.shard_index is None:
        return tensors
    name = f"{part}/{weights.shard_index}"
    index = contents.objects.get(name)
    if index is None:
        return None
    what = _index_fault(index, part, weights, contents)
    if what is None:
        return tensors
    problems.append(model_problem(f"{name} {what}"))
    return None


def _index_fault(
    index: Mapping[str, Any],
    part: str,
    weights: Weights,
    contents: _Contents,
) -> str | None:
    """Return what is wrong with the index of a part's shards, which can all be read."""
    listed = index.get("weight_map")
    if not isinstance(listed, dict):
        return _NO_WEIGHT_MAP
    files = listed.values()
    if not all(isinstance(file, str) for file in files):
        return _NO_WEIGHT_MAP
    absent = sorted(set(files).difference(weights.files))
    if absent:
        more = _and_more(absent)
        return f"lists {absent[0]}, which is not there{more}"
    pairs = set(listed.items())
    found = set()
    for file in weights.files:
        header = contents.headers[f"{part}/{file}"]
        for name in header:
            found.add((name, file))
    without = sorted(pairs - found)
    if without:
        name, file = without[0]
        more = _and_more(without)
        return f"lists {name} in {file}, which does not hold it{more}"
    unlisted = sorted(found - pairs)
    if unlisted:
        name, file = unlisted[0]
        more = _and_more(unlisted)
        return f"does not list {name}, which {file} holds{more}"
    return None


def _and_more(faults: Sequence[object]) -> str:
    """Return how many faults there are beside the first."""
    more = len(faults) - 1
    if more == 0:
        return ""
    return f", and {more} more"


def _architecture_problems(family: Family, denoiser: Denoiser) -> Iterator[Problem]:
    """Yield why the denoiser is not of the family that the index names."""
    found = denoiser.config.addition_embed_type
    expected = family.addition_embed_type
    if found != expected:
        reason = f"addition_embed_type {found}, expected {expected}"
        what = f"it calls itself a {family.pipeline}, but its {family.denoiser} is another ({reason})"
        yield model_problem(what, ONE_MODEL)


def _index_problems(family: Family, contents: _Contents) -> Iterator[Problem]:
    """Yield the parts that the model's index gives another class than the family's, or code of its own."""
    index = contents.objects[INDEX_FILE]
    classes = {"vae": "AutoencoderKL", **family.classes}
    classes |= dict.fromkeys(family.tokenizers, "CLIPTokenizer")
    for part, expected in classes.items():
        match index.get(part):
            case [str(library), str(name)]:
                accepted = (expected, f"{expected}Fast")
                if library not in _LIBRARIES or name not in accepted:
                    what = f"{INDEX_FILE}: {part} is {library}.{name}, and only {expected} can be trained"
                    yield model_problem(what, ANOTHER)
            case _:
                yield model_problem(f"{INDEX_FILE} does not say that {part} is a {expected}")
    match index.get("scheduler"):
        case ["diffusers", str(name)]:
            if name not in SCHEDULERS:
                what = f"{INDEX_FILE} names the scheduler {name}, which cannot draw with this model"
                yield model_problem(what, f'write ["diffusers", "DDIMScheduler"] for it, or {ANOTHER}')
        case _:
            yield model_problem(f"{INDEX_FILE} does not say which of diffusers' schedulers it has", ANOTHER)
