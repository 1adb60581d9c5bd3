"""The instance types for training jobs: their GPUs, and the price of an hour.

The figures are data (`assets/instances.json`), a dated snapshot that states its sources and which of its figures are
approximate. Makes no call.
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

_NAME = re.compile(r"ml\.([a-z]+\d+[a-z0-9-]*)\.(metal|\d*x?large|medium)(-\w+)?")
_WITHOUT_GPU = re.compile(r"[cmrt]\d")
_OTHER_CHIP = re.compile(r"(trn|inf)\d")
_ARM = re.compile(r"(p6e-gb|g5g)")
_TOO_OLD = {"p2", "p3", "p3dn"}
_NEWER = "types whose names begin with ml.g5, ml.g6 or ml.g6e do"


class Gpu(BaseModel):
    """One model of GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name by its manufacturer: "A10G"."""
    memory_gib: int
    """Memory as sold, GiB."""
    usable_gib: float
    """Memory that a framework can allocate, GiB."""
    bf16: bool
    """Whether it computes in bfloat16."""


class Instance(BaseModel):
    """One instance type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name in the API: "ml.g5.xlarge"."""
    gpu: Gpu
    """Model of its GPUs."""
    gpus: int
    """Number of GPUs."""
    vcpus: int
    """Virtual CPUs."""
    memory_gib: int
    """Main memory, GiB."""
    disk_gb: int | None = None
    """Built-in disk, GB, which replaces the volume; None for types without one."""
    usd_per_hour: Decimal | None
    """On-demand price of training in us-east-1; None when none is known."""
    approximate: bool = False
    """Whether the price comes from a single source."""

    @property
    def family(self) -> str:
        """The family that region factors are listed by: "g" or "p"."""
        _, name, _ = self.name.split(".")
        return name[0]

    def describe(self) -> str:
        """Return the type and its GPUs in a few words."""
        gpu = self.gpu.name
        if self.gpus > 1:
            gpu = f"{self.gpus} x {gpu}"
        return f"{self.name} ({gpu}, {self.gpu.memory_gib} GiB)"


class Price(BaseModel):
    """Price of an hour of an instance in a region."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd_per_hour: Decimal
    """On-demand price of one instance."""
    region: str
    """AWS region."""
    as_of: date
    """Date of the snapshot."""
    approximate: bool
    """Whether it is an estimate."""


@cache
def instances() -> Mapping[str, Instance]:
    """Return every instance type with a GPU that can train, by name."""
    raw = _raw()
    gpus = {name: Gpu(name=name, **fields) for name, fields in raw["gpus"].items()}
    found = {}
    for name, fields in raw["instances"].items():
        gpu = gpus[fields["gpu"]]
        found[name] = Instance(**{**fields, "name": name, "gpu": gpu})
    return found


def prices_as_of() -> date:
    """Return the date of the price list."""
    return date.fromisoformat(about()["as_of"])


def about() -> dict[str, Any]:
    """Return the header of the table: its date, its sources, and general prices."""
    header: dict[str, Any] = _raw()["about"]
    return header


def instance(name: str) -> Instance:
    """Return an instance type; raises ValueError that says why it cannot be used, and which types can."""
    known = instances()
    if name in known:
        return known[name]
    found = _NAME.fullmatch(name)
    family = found[1] if found else ""
    if _WITHOUT_GPU.match(family):
        raise ValueError(f"{name} has no GPU; the smallest that has one is {_cheapest().name}")
    if _OTHER_CHIP.match(family):
        raise ValueError(f"{name} has AWS's own chips, which do not run this training code; {_NEWER}")
    if _ARM.match(family):
        raise ValueError(f"{name} has Arm processors, and the training image is built for x86; {_NEWER}")
    if family in _TOO_OLD:
        raise ValueError(f"{name} has GPUs too old for current torch, and cannot run this training code; {_NEWER}")
    hint = did_you_mean(name, known) or f"of those with a GPU, {_NEWER}"
    raise ValueError(f'there is no instance type "{name}" in the price table; {hint}')


def priced() -> list[Instance]:
    """Return the instance types whose price is known, the cheapest first."""
    known = [one for one in instances().values() if one.usd_per_hour is not None]
    return sorted(known, key=_usd_per_hour)


def price(chosen: Instance, region: str) -> Price | None:
    """Return the price of an hour; for a region without a known factor, at the highest factor of all regions.

    None for a type whose price is not known.
    """
    if chosen.usd_per_hour is None:
        return None
    factors: dict[str, dict[str, str]] = _raw()["region_factors"]
    known = factors.get(region, {}).get(chosen.family)
    factor = _highest_factor(chosen.family)
    if known is not None:
        factor = Decimal(known)
    usd_per_hour = chosen.usd_per_hour * factor
    return Price(
        usd_per_hour=usd_per_hour.quantize(Decimal("0.0001")),
        region=region,
        as_of=prices_as_of(),
        approximate=chosen.approximate or factor != 1 or known is None,
    )


def fallbacks(chosen: Instance, *, limit: int = 4) -> list[Instance]:
    """Return instance types to use instead of one that is not available, the cheapest first.

    Each has the same number of GPUs with at least as much memory, so that the run is the same. Other GPU models are
    preferred to other sizes of the same one: when a GPU model is scarce, it is scarce in every size.
    """
    seen = {chosen.gpu.name}
    other_gpus: list[Instance] = []
    other_sizes: list[Instance] = []
    for other in priced():
        if not _can_replace(other, chosen):
            continue
        if other.gpu.name in seen:
            other_sizes.append(other)
        else:
            other_gpus.append(other)
            seen.add(other.gpu.name)
    found = [*other_gpus, *other_sizes][:limit]
    return sorted(found, key=_usd_per_hour)


def with_disk(chosen: Instance, gb: int) -> Instance | None:
    """Return the cheapest type for the same run whose built-in disk has at least `gb` GB."""
    for other in priced():
        if _can_replace(other, chosen) and other.disk_gb is not None and other.disk_gb >= gb:
            return other
    return None


def with_memory(chosen: Instance, gib: int) -> Instance | None:
    """Return the cheapest type for the same run with at least `gib` GiB of main memory."""
    for other in priced():
        if _can_replace(other, chosen) and other.memory_gib >= gib:
            return other
    return None


def _can_replace(other: Instance, chosen: Instance) -> bool:
    if other.name == chosen.name or other.gpus != chosen.gpus:
        return False
    if chosen.gpu.bf16 and not other.gpu.bf16:
        return False
    return other.gpu.usable_gib >= chosen.gpu.usable_gib


def _highest_factor(family: str) -> Decimal:
    factors: list[Decimal] = []
    for by_family in _raw()["region_factors"].values():
        if family in by_family:
            factors.append(Decimal(by_family[family]))
    return max(factors)


def _usd_per_hour(one: Instance) -> Decimal:
    return one.usd_per_hour or Decimal(0)


@cache
def _raw() -> dict[str, Any]:
    text = INSTANCES_TABLE.read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def _cheapest() -> Instance:
    return priced()[0]
