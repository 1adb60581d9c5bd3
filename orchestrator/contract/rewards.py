"""Rewards: what reinforcement learning raises, as a person names them, and what each needs.

Those of the table are built in. Any other name is a function of an installed package: an entry point of the group
`orchestrator.rewards`.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orchestrator.contract.labels import LONGEST_ROUND
from orchestrator.contract.problem import did_you_mean

ENTRY_POINTS = "orchestrator.rewards"
"""Group of entry points by which a package offers rewards."""
REWARDS_CHANNEL = "rewards"
"""Channel with the weights of rewards: a folder for each, by the reward's name."""
MOST_WEIGHT = 1e6
_NAME = re.compile(r"[a-zA-Z0-9]+([-_.][a-zA-Z0-9]+)*")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Hosts that are this machine itself."""


class RewardKind(BaseModel):
    """A built-in reward."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What people call it."""
    summary: str
    """What it is, in one line."""
    groupwise: bool = False
    """Whether it judges the images of a group beside each other, and not each alone."""
    reads_clip: bool = False
    """Whether it needs a CLIP: the base model's own, or that of `scorer`. Not so where a `url` is given."""
    weights: str | None = None
    """What `path` names; None for a reward that reads no weights."""
    takes_url: bool = False
    """Whether `url` may name a server that judges instead."""
    needs_people: bool = False
    """Whether people give it."""


JPEG_COMPRESSIBILITY = RewardKind(
    name="jpeg-compressibility",
    summary="minus the kilobytes of the image as a JPEG of quality 95",
)
JPEG_INCOMPRESSIBILITY = RewardKind(
    name="jpeg-incompressibility",
    summary="the kilobytes of the image as a JPEG of quality 95",
)
AESTHETIC = RewardKind(
    name="aesthetic",
    summary="what a linear head makes of CLIP's embedding of the image",
    reads_clip=True,
    weights="the head, a file of safetensors",
)
PROMPT_ALIGNMENT = RewardKind(
    name="prompt-alignment",
    summary="how much the image shows its prompt, by CLIP or by a vision-language model at `url`",
    reads_clip=True,
    weights="with `url`, a text model of transformers, which compares answers in words with the prompt",
    takes_url=True,
)
HUMAN = RewardKind(
    name="human",
    summary="labels that people give",
    needs_people=True,
)
BUILT_IN = {
    kind.name: kind
    for kind in (
        JPEG_COMPRESSIBILITY,
        JPEG_INCOMPRESSIBILITY,
        AESTHETIC,
        PROMPT_ALIGNMENT,
        HUMAN,
    )
}
"""The built-in rewards by name."""


class RewardUse(BaseModel):
    """A reward as a job uses it. "NAME" and "NAME:WEIGHT" are short for one without other settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = Field(max_length=100)
    """A built-in reward, or that of an installed package."""
    weight: float = Field(1.0, ge=-MOST_WEIGHT, le=MOST_WEIGHT)
    """Factor of it in the sum."""
    required: bool = True
    """Whether the job ends when it cannot be computed; it counts as 0 otherwise."""
    path: str | None = None
    """Its weights on the machine that submits."""
    url: str | None = None
    """The server that judges, for a reward that asks one."""
    question: str = Field("Describe the image in one sentence.", min_length=1, max_length=1000)
    """What the server is asked of each image."""
    deadline_seconds: float = Field(60, gt=0, le=3600)
    """How long the server may take for one image, all attempts together."""
    people: int = Field(1, ge=1, le=100)
    """How many people have to judge each image of a round."""
    label_hours: float = Field(72, gt=0, le=LONGEST_ROUND // timedelta(hours=1))
    """How long a round waits for them; it then goes on with the labels that it has, if there are any. At most 28 days:
    in a bucket the checkpoints expire, and the round with them."""

    @model_validator(mode="before")
    @classmethod
    def _read_short_form(cls, data: Any) -> Any:  # raw input of any shape
        if not isinstance(data, str):
            return data
        name, colon, weight = data.partition(":")
        if not colon:
            return {"name": name}
        return {"name": name, "weight": weight}

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if _NAME.fullmatch(value) is None:
            raise ValueError(f'"{value}" is no name of a reward; {did_you_mean(value, BUILT_IN)}')
        return value

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None:
            _require_safe(value)
        return value

    @model_validator(mode="after")
    def _check_settings(self) -> "RewardUse":
        kind = self.kind
        if self.path is not None and (kind is None or kind.weights is None):
            raise ValueError(f'"{self.name}" reads no weights; leave path out')
        if self.url is not None and (kind is None or not kind.takes_url):
            raise ValueError(f'"{self.name}" asks no server; leave url out')
        if kind is PROMPT_ALIGNMENT and self.path is not None and self.url is None:
            raise ValueError(f'"{self.name}" without url is measured by CLIP and reads no weights; leave path out')
        return self

    def without_place(self) -> "RewardUse":
        """Return it with the name of its weights alone, and not where they lie on this machine."""
        if self.path is None:
            return self
        return self.model_copy(update={"path": f"./{PurePath(self.path).name}"})

    def __str__(self) -> str:
        """Return it as people write it: in the short form where that says all."""
        name = self.name
        if self.weight != 1:
            name = f"{name}:{self.weight:g}"
        others = self.model_dump(exclude={"name", "weight"}, exclude_defaults=True)
        if not others:
            return name
        return self.model_dump_json(exclude_defaults=True)

    @property
    def kind(self) -> RewardKind | None:
        """The built-in reward; None for one of a package."""
        return BUILT_IN.get(self.name)

    @property
    def reads_clip(self) -> bool:
        """Whether it needs a CLIP."""
        kind = self.kind
        return kind is not None and kind.reads_clip and self.url is None

    @property
    def needs_people(self) -> bool:
        """Whether people give it."""
        kind = self.kind
        return kind is not None and kind.needs_people


def _require_safe(url: str) -> None:
    """Raise ValueError unless a URL is https, or of this machine, and holds no password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        port_fault = parts.port == 0
    except ValueError as error:
        raise ValueError(f'"{url}" is no URL: {error}') from error
    if parts.scheme not in ("http", "https") or not host or port_fault:
        raise ValueError(f'"{url}" is no URL of a server; write it as https://judge.example.com/score')
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL holds a name or a password, which everybody reads who may see the job")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ValueError(f'"{url}" is not encrypted; write https, or http for a server on this machine alone')


def require_distinct(trained: Sequence[RewardUse], evaluated: Sequence[RewardUse]) -> None:
    """Raise ValueError unless each reward is named once, and none is both trained on and evaluated by.

    What is trained on says nothing of whether it was overdone: that takes a reward that nothing has raised.
    """
    _require_once(trained)
    _require_once(evaluated)
    names = {use.name for use in trained}
    for use in evaluated:
        if use.name in names:
            raise ValueError(f'"{use.name}" is trained on too, so it cannot evaluate; leave it out of one of the two')
        if use.needs_people:
            raise ValueError(f'"{use.name}" is no evaluation reward: people would have to wait for every round')


def _require_once(uses: Iterable[RewardUse]) -> None:
    names = set()
    for use in uses:
        if use.name in names:
            raise ValueError(f'"{use.name}" is named twice; give it once, with the sum of the weights')
        names.add(use.name)
