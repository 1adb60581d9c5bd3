"""The instance types a training job can ask for: their GPUs, and what an hour of each costs.

The figures are data (`assets/instances.json`), a dated snapshot that says where they come from and which of them are
approximate. Nothing here talks to AWS.
"""

import json
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.problem import did_you_mean
from orchestrator.resources import INSTANCES_TABLE

HOME_REGION = "us-east-1"

_NAME = re.compile(r"ml\.([a-z]+\d+[a-z-]*)\.(metal|\d*x?large|medium)(-\w+)?")
_WITHOUT_GPU = re.compile(r"[cmrt]\d")
_OTHER_CHIP = re.compile(r"(trn|inf)\d")
_TOO_OLD = {"p2", "p3", "p3dn"}
_NEWER = "types whose names begin with ml.g5, ml.g6 or ml.g6e do"


class Gpu(BaseModel):
    """One model of GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """As its maker calls it: "A10G"."""
    memory_gib: int
    """Memory as sold, GiB."""
    usable_gib: float
    """What of it a framework can have, GiB."""
    bf16: bool
    """Whether it computes in bfloat16."""


class Instance(BaseModel):
    """One instance type."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """As the API calls it: "ml.g5.xlarge"."""
    gpu: Gpu
    """Its model of GPU."""
    gpus: int
    """How many of them."""
    vcpus: int
    """Virtual CPUs."""
    memory_gib: int
    """Main memory, GiB."""
    disk_gb: int | None = None
    """Disk built in, GB: it takes the place of the volume; None where only a volume is to be had."""
    usd_per_hour: Decimal
    """On-demand price of training in us-east-1."""
    approximate: bool = False
    """Whether the price was seen in one place only."""

    @property
    def family(self) -> str:
        """The letter prices of a region go by: "g" or "p"."""
        return self.name.split(".")[1][0]

    def describe(self) -> str:
        """Return the type and its GPUs in a few words."""
        count = f"{self.gpus} x " if self.gpus > 1 else ""
        return f"{self.name} ({count}{self.gpu.name}, {self.gpu.memory_gib} GiB)"


class Price(BaseModel):
    """What an hour of an instance costs in a region."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    usd_per_hour: Decimal
    """On demand, one instance."""
    region: str
    """Where."""
    as_of: date
    """Day of the snapshot."""
    approximate: bool
    """Whether it was worked out rather than read."""


@cache
def instances() -> Mapping[str, Instance]:
    """Return every instance type with a GPU that has a price, by name."""
    raw = _raw()
    gpus = {name: Gpu(name=name, **fields) for name, fields in raw["gpus"].items()}
    return {
        name: Instance(name=name, **{**fields, "gpu": gpus[fields["gpu"]]}) for name, fields in raw["instances"].items()
    }


def prices_as_of() -> date:
    """Return the day the prices were read."""
    return date.fromisoformat(about()["as_of"])


def about() -> dict[str, Any]:
    """Return what the table says of itself: its date, its sources, what is approximate."""
    header: dict[str, Any] = _raw()["about"]
    return header


def instance(name: str) -> Instance:
    """Return an instance type; raises ValueError that says why it cannot be used and what can."""
    known = instances()
    if name in known:
        return known[name]
    found = _NAME.fullmatch(name)
    family = found[1] if found else ""
    if _WITHOUT_GPU.match(family):
        raise ValueError(f"{name} has no GPU; the smallest that has one is {_cheapest().name}")
    if _OTHER_CHIP.match(family):
        raise ValueError(f"{name} has AWS's own chips, which do not run this training code; {_NEWER}")
    if family in _TOO_OLD:
        raise ValueError(f"{name} has GPUs too old for current torch, and cannot run this training code; {_NEWER}")
    hint = did_you_mean(name, known) or f"of those with a GPU, {_NEWER}"
    raise ValueError(f'there is no instance type "{name}" in the price table; {hint}')


def price(chosen: Instance, region: str) -> Price:
    """Return the price of an hour; where a region has no factor of its own, the dearest one known stands in."""
    factors: dict[str, dict[str, str]] = _raw()["region_factors"]
    known = factors.get(region, {}).get(chosen.family)
    factor = Decimal(known or max((by[chosen.family] for by in factors.values() if chosen.family in by), key=Decimal))
    return Price(
        usd_per_hour=(chosen.usd_per_hour * factor).quantize(Decimal("0.0001")),
        region=region,
        as_of=prices_as_of(),
        approximate=chosen.approximate or factor != 1 or known is None,
    )


def fallbacks(chosen: Instance, *, limit: int = 4) -> list[Instance]:
    """Return what could stand in for an instance that cannot be had, the cheapest first.

    Each has as many GPUs with at least as much memory, so that the run is the same; other GPU models come before
    other sizes of the same one, because a model that is short is short in every size.
    """
    able = sorted(
        (other for other in instances().values() if _stands_in(other, chosen)), key=lambda other: other.usd_per_hour
    )
    seen = {chosen.gpu.name}
    first: list[Instance] = []
    rest: list[Instance] = []
    for other in able:
        (rest if other.gpu.name in seen else first).append(other)
        seen.add(other.gpu.name)
    return sorted([*first, *rest][:limit], key=lambda other: other.usd_per_hour)


def _stands_in(other: Instance, chosen: Instance) -> bool:
    enough = other.gpu.usable_gib >= chosen.gpu.usable_gib and other.gpu.bf16 >= chosen.gpu.bf16
    return other.name != chosen.name and other.gpus == chosen.gpus and enough


@cache
def _raw() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(INSTANCES_TABLE.read_text(encoding="utf-8"))
    return table


def _cheapest() -> Instance:
    return min(instances().values(), key=lambda one: one.usd_per_hour)
