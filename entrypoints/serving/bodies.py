"""What people send: our own body, and those that clients of other servers send already, read as one `Generation`.

Hugging Face: https://huggingface.co/docs/inference-providers/tasks/text-to-image
JumpStart: https://docs.aws.amazon.com/sagemaker/latest/dg/jumpstart-foundation-models.html
OpenAI: https://platform.openai.com/docs/api-reference/images/create
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestrator.contract.generation import (
    MAX_SEED,
    MOST_ADAPTERS,
    MOST_IMAGES,
    SCHEDULERS,
    AdapterUse,
    Generation,
    Prompt,
    SchedulerName,
    Seed,
)
from orchestrator.contract.problem import Problem, problems_of

DEEPEST = 16
"""Levels of a JSON body; ours have six."""
OWN, JUMPSTART, OPENAI = "hugging-face", "jumpstart", "openai"


class BodyError(Exception):
    """A body cannot be read."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.render() for problem in problems))
        self.problems = problems


class Defaults(NamedTuple):
    """What a request draws with that does not say."""

    steps: int
    guidance: float
    size: int
    base_model: str = ""
    """Its name, which OpenAI's clients may send as `model`."""


DefaultsOf = Callable[[Sequence[str]], Defaults]
"""From the names of a request's adapters to what it draws with that it does not say."""


class Asked(NamedTuple):
    """A request that was read."""

    generation: Generation
    style: str
    """Whose body it was, and so what the answer looks like: OWN, JUMPSTART or OPENAI."""
    preview: bool = False
    """Whether an image is sent after each step."""
    image_format: str = "PNG"
    """Of images in JSON, as Pillow names it."""
    media_type: str = "application/json"
    """Of the answer."""


class Parameters(BaseModel):
    """`parameters` of Hugging Face's text to image, and what ours adds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    negative_prompt: str | None = None
    """What not to draw."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance."""
    width: int | None = None
    """Pixels, a multiple of 8; as the base model or the recipe of the first adapter draws when left out."""
    height: int | None = None
    """Pixels, likewise."""
    scheduler: SchedulerName | None = None
    """How steps are taken."""

    @field_validator("scheduler", mode="before")
    @classmethod
    def _by_class(cls, value: Any) -> Any:
        """Return the name of a scheduler whose class in diffusers is given, as clients of Hugging Face do."""
        for name, class_name in SCHEDULERS.items():
            if value == class_name:
                return name
        return value

    seed: Seed | None = None
    """Of the first image; the others have those that follow. Drawn at random when left out."""
    num_images_per_prompt: int = Field(1, ge=1, le=MOST_IMAGES)
    """Images of each prompt."""
    strength: float | None = None
    """With `image`: the share of the steps that are taken."""
    adapters: list[Any] = []
    """As beside `parameters`: Hugging Face's client puts everything that it does not know in here."""
    loras: list[Any] = []
    """Another name of `adapters`."""
    embeddings: list[Any] = []
    """As beside `parameters`."""
    controlnets: list[Any] = []
    """As beside `parameters`."""


class OwnBody(BaseModel):
    """The body of `/invocations`."""

    model_config = ConfigDict(extra="forbid")

    inputs: Prompt | list[Prompt]
    """What to draw."""
    parameters: Parameters = Parameters()
    """How."""
    adapters: list[Any] = []
    """`{"name": ..., "weight": ...}` for each."""
    loras: list[Any] = []
    """Another name of `adapters`."""
    embeddings: list[Any] = []
    """Names of learned words that the prompts use."""
    controlnets: list[Any] = []
    """See `generation.Control`."""
    image: str | None = None
    """A picture that the images begin with, in base64."""
    mask: str | None = None
    """Where it is drawn anew."""
    stream: bool = False
    """Whether an image is sent after each step, as server-sent events."""


class JumpStartBody(BaseModel):
    """The body of JumpStart's Stable Diffusion."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: Prompt
    """What to draw."""
    negative_prompt: str | None = None
    """What not to draw."""
    width: int | None = None
    """Pixels, a multiple of 8; as the base model or the recipe of the first adapter draws when left out."""
    height: int | None = None
    """Pixels, likewise."""
    num_images_per_prompt: int = Field(1, ge=1, le=MOST_IMAGES)
    """Images."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance."""
    seed: Seed | None = None
    """Of the first image."""
    batch_size: int | None = None
    """Ignored: the server chooses."""


class OpenAiBody(BaseModel):
    """The body of `/v1/images/generations`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    prompt: Prompt
    """What to draw."""
    n: int = Field(1, ge=1, le=MOST_IMAGES)
    """Images."""
    size: str | None = Field(None, pattern=r"^(auto|[0-9]{2,4}x[0-9]{2,4})$")
    """Width x height in pixels."""
    response_format: Literal["b64_json"] = "b64_json"
    """Images come in the answer: this server hands out no addresses."""
    model: str | None = None
    """The name of an adapter; the base model when it is left out, or is none."""
    seed: Seed | None = None
    """Of the first image: no part of OpenAI's own, as the three that follow."""
    negative_prompt: str | None = None
    """What not to draw."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance."""
    user: str | None = None
    """Ignored."""
    quality: str | None = None
    """Ignored."""
    background: str | None = None
    """Ignored."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    """Of the images."""
    style: str | None = None
    """Ignored."""
    moderation: str | None = None
    """Ignored."""


def parse(content: bytes) -> Mapping[str, Any]:
    """Return the object of a JSON body; raises BodyError for anything else, and for one that is nested too deep."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BodyError(
            [
                Problem(
                    where="body",
                    what=f"is no JSON: {error}",
                    fix="send a JSON object",
                )
            ]
        ) from error
    if not isinstance(value, dict):
        raise BodyError(
            [
                Problem(
                    where="body",
                    what="is no JSON object",
                    fix='send {"inputs": "what to draw"}',
                )
            ]
        )
    if not is_flat(value):
        raise BodyError(
            [
                Problem(
                    where="body",
                    what=f"is nested more than {DEEPEST} levels deep",
                    fix="flatten it",
                )
            ]
        )
    return value


def is_flat(value: Any) -> bool:
    """Whether a JSON value is nested at most DEEPEST levels deep."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            else:
                below += one
        level = []
        for one in below:
            if isinstance(one, dict | list):
                level.append(one)
        if not level:
            return True
    return False


def read_invocation(content: bytes, defaults_of: DefaultsOf) -> Asked:
    """Read a body of `/invocations`: ours has `inputs`, JumpStart's has `prompt`; raises BodyError."""
    value = parse(content)
    try:
        if "prompt" in value:
            return _of_jumpstart(JumpStartBody.model_validate(value), defaults_of)
        return _of_own(OwnBody.model_validate(value), defaults_of)
    except ValidationError as error:
        raise BodyError(list(problems_of(error))) from error


def read_openai(content: bytes, defaults_of: DefaultsOf) -> Asked:
    """Read a body of OpenAI's images; raises BodyError."""
    value = parse(content)
    try:
        body = OpenAiBody.model_validate(value)
        width = height = None
        if body.size not in (None, "auto"):
            width, height = map(int, str(body.size).split("x"))
        parameters = Parameters(
            width=width,
            height=height,
            seed=body.seed,
            num_images_per_prompt=body.n,
            negative_prompt=body.negative_prompt,
            num_inference_steps=body.num_inference_steps,
            guidance_scale=body.guidance_scale,
        )
        adapters = []
        if body.model and body.model != defaults_of(()).base_model:
            adapters.append({"name": body.model})
        generation = _generation([body.prompt], parameters, defaults_of, {"adapters": adapters})
        kind = body.output_format or "png"
        return Asked(generation, OPENAI, image_format=kind.upper())
    except ValidationError as error:
        raise BodyError(list(problems_of(error))) from error


def with_adapter(asked: Asked, name: str | None) -> Asked:
    """Return a request with the adapter that SageMaker named for it, beside those of its body.

    Raises BodyError when the body is OpenAI's and names another one: it has room for one alone.
    """
    wanted = asked.generation
    named = [use.name for use in wanted.adapters]
    if name is None or name in named or name in wanted.embeddings:
        return asked
    if asked.style == OPENAI and named:
        what = f'is "{named[0]}", and the request came for the adapter "{name}"'
        raise BodyError([Problem(where="model", what=what, fix="leave the model out")])
    try:
        added = AdapterUse(name=name)
        adapters = (added, *wanted.adapters)
        if len(adapters) > MOST_ADAPTERS:
            what = f"are {len(adapters)} with that of the request's header; at most {MOST_ADAPTERS} go together"
            raise BodyError([Problem(where="adapters", what=what, fix="name fewer")])
    except ValidationError as error:
        raise BodyError(list(problems_of(error))) from error
    return asked._replace(generation=wanted.model_copy(update={"adapters": adapters}))


def _of_own(body: OwnBody, defaults_of: DefaultsOf) -> Asked:
    prompts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    within = body.parameters
    more: dict[str, Any] = {
        "adapters": [*body.adapters, *body.loras, *within.adapters, *within.loras],
        "embeddings": [*body.embeddings, *within.embeddings],
        "controls": [*body.controlnets, *within.controlnets],
        "image": body.image,
        "mask": body.mask,
    }
    generation = _generation(prompts, within, defaults_of, more)
    return Asked(generation, OWN, body.stream)


def _of_jumpstart(body: JumpStartBody, defaults_of: DefaultsOf) -> Asked:
    values = body.model_dump(exclude={"prompt", "batch_size"}, exclude_none=True)
    parameters = Parameters(**values)
    generation = _generation([body.prompt], parameters, defaults_of, {})
    return Asked(generation, JUMPSTART)


def _generation(
    prompts: list[str],
    parameters: Parameters,
    defaults_of: DefaultsOf,
    more: Mapping[str, Any],
) -> Generation:
    """Return the generation of a body; raises ValidationError."""
    first = parameters.seed
    if first is None:
        first = secrets.randbelow(MAX_SEED)
    seeds = []
    for number in range(parameters.num_images_per_prompt):
        seed = (first + number) % (MAX_SEED + 1)
        seeds.append(seed)
    defaults = defaults_of(names_in(more.get("adapters", ())))
    values: dict[str, Any] = {
        "prompts": prompts,
        "negative_prompt": parameters.negative_prompt,
        "seeds": seeds,
        "steps": first_given(parameters.num_inference_steps, defaults.steps),
        "guidance": first_given(parameters.guidance_scale, defaults.guidance),
        "size": defaults.size,
        "width": parameters.width,
        "height": parameters.height,
        "scheduler": parameters.scheduler,
        **more,
    }
    if parameters.strength is not None:
        values["strength"] = parameters.strength
    return Generation.model_validate(values)


def names_in(adapters: Sequence[Any]) -> list[str]:
    """Return the names of a body's adapters, as far as there are some: they are checked later."""
    names = []
    for adapter in adapters:
        if isinstance(adapter, dict) and isinstance(adapter.get("name"), str):
            names.append(adapter["name"])
    return names


def first_given(*values: Any) -> Any:
    """Return the first value that is not None."""
    for value in values:
        if value is not None:
            return value
    return None


def body_schema(*models: type[BaseModel]) -> dict[str, Any]:
    """Return what an operation of OpenAPI says of its JSON body: one of some models."""
    schemas = []
    for model in models:
        schema = model.model_json_schema()
        definitions = schema.pop("$defs", {})
        schemas.append(_inlined(schema, definitions))
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a JSON schema with its definitions in their places."""
    if isinstance(value, list):
        return [_inlined(one, definitions) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return _inlined(definitions[name], definitions)
    return {key: _inlined(one, definitions) for key, one in value.items()}


OWN_BODY = body_schema(OwnBody, JumpStartBody)
OPENAI_BODY = body_schema(OpenAiBody)
"""For the server's own OpenAPI: bodies are read by this module, not by the framework."""
