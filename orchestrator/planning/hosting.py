"""Choose the instance type of an endpoint, and what its instances cost by the hour. Makes no call.

The price list has the prices of training. Where public lists name both, an hour of hosting costs the same on the GPU
types; so they stand for hosting too, and are called approximate.
"""

from datetime import date
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Instance, instance, instances, price, prices_as_of
from orchestrator.contract.plurals import counted
from orchestrator.contract.problem import Problem
from orchestrator.errors import SpecError
from orchestrator.planning.memory import Fit, MemoryEstimate
from orchestrator.planning.pricing import dollars

_UNKNOWN_MODEL_GIB = 20.0  # least usable GPU memory for a model of unknown size
HOURS_OF_DAY = 24


class Hosting(BaseModel):
    """The instances of an endpoint, and their price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance: Instance
    """Instance type."""
    region: str
    """AWS region."""
    memory: MemoryEstimate | None
    """Estimated GPU memory; None for a model of unknown size."""
    why: str
    """How the type was chosen, as a sentence."""
    usd_per_hour: Decimal | None
    """Price of an hour of one instance; None when none is known."""
    as_of: date
    """Date of the price list."""

    @property
    def quota(self) -> str:
        """The service quota that has to allow it, by its name in the Service Quotas console."""
        return f"{self.instance.name} for endpoint usage"

    def price_of(self, count: int) -> str:
        """Return what a number of instances costs, as text."""
        what = counted(count, "instance")
        if self.usd_per_hour is None:
            return f"{what}: unknown; the price list of {self.as_of} has no price of {self.instance.name}"
        hour = self.usd_per_hour * count
        return f"{what}: about {dollars(hour)} an hour, {dollars(hour * HOURS_OF_DAY)} a day (prices of {self.as_of})"

    def require_affordable(self, most: int, usd_per_day: float | None) -> None:
        """Raise SpecError when the most instances cost more in a day than is allowed, and when no price is known."""
        if usd_per_day is None:
            return
        allowed = Decimal(str(usd_per_day))
        if self.usd_per_hour is None:
            what = f"no price of {self.instance.name} is known, so a limit of {dollars(allowed)} a day cannot be kept"
            raise _refusal("lease.max_usd_per_day", what, "leave the limit out, or choose another instance type")
        needed = self.usd_per_hour * HOURS_OF_DAY * most
        if needed > allowed:
            what = f"{self.price_of(most)}: more than the {dollars(allowed)} a day that are allowed"
            raise _refusal("lease.max_usd_per_day", what, f"allow {dollars(needed)} a day, or fewer instances")


def find_hosting(
    memory: MemoryEstimate | None,
    wanted: str | None,
    region: str,
) -> Hosting:
    """Return the wanted instance type, or else the cheapest with one GPU that is sure to hold the model.

    Raises SpecError for a type that does not exist or is too small, and when none is large enough.
    """
    if wanted is not None:
        chosen = _requested(wanted, memory)
        why = "Requested."
    else:
        chosen = _cheapest(memory, region)
        why = "Lowest hourly price among the types whose GPU is large enough: the size of the model is unknown."
        if memory is not None:
            why = f"Lowest hourly price among the types whose GPU is large enough for {memory.describe()}."
    listed = price(chosen, region)
    usd_per_hour = None
    if listed is not None:
        usd_per_hour = listed.usd_per_hour
    return Hosting(
        instance=chosen,
        region=region,
        memory=memory,
        why=why,
        usd_per_hour=usd_per_hour,
        as_of=prices_as_of(),
    )


def _requested(name: str, memory: MemoryEstimate | None) -> Instance:
    try:
        chosen = instance(name)
    except ValueError as error:
        raise _refusal("instance_type", str(error), "leave it out to have one chosen") from error
    if memory is not None and memory.fit(chosen.gpu) is Fit.DOES_NOT_FIT:
        what = f"{chosen.describe()} is too small: the server is estimated to take {memory.describe()}"
        raise _refusal("instance_type", what, "name a larger one with --instance-type, or use fewer slots")
    return chosen


def _cheapest(memory: MemoryEstimate | None, region: str) -> Instance:
    candidates: list[tuple[Decimal, Instance]] = []
    for one in instances().values():
        listed = price(one, region)
        if listed is not None and one.gpus == 1 and _is_enough(one, memory):
            candidates.append((listed.usd_per_hour, one))
    if not candidates:
        need = memory.describe() if memory is not None else "an unknown amount of memory"
        what = f"no instance type with a known price has a GPU that is sure to hold {need}"
        raise _refusal("instance_type", what, "use fewer slots, or name an instance type yourself")
    return min(candidates, key=_by_price)[1]


def _by_price(candidate: tuple[Decimal, Instance]) -> tuple[Decimal, str]:
    usd_per_hour, one = candidate
    return usd_per_hour, one.name


def _is_enough(one: Instance, memory: MemoryEstimate | None) -> bool:
    if memory is None:
        return one.gpu.usable_gib >= _UNKNOWN_MODEL_GIB
    return memory.fit(one.gpu) is Fit.FITS and memory.fits_main(one)


def _refusal(
    where: str,
    what: str,
    fix: str,
) -> SpecError:
    return SpecError(
        "The endpoint cannot have these instances; nothing was created or changed.",
        problems=[Problem(where=where, what=what, fix=fix)],
        next_step="change what is named above and try again",
    )
