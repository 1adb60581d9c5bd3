"""What a job costs: the most it can, before it starts; what it did, afterwards. All money is Decimal dollars."""

from datetime import date
from decimal import ROUND_FLOOR, ROUND_HALF_UP, ROUND_UP, Decimal

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Instance, about, price
from orchestrator.contract.environment import STOP_GRACE_SECONDS
from orchestrator.specs.compute import SHORTEST_MINUTES, Compute

CENT = Decimal("0.01")
_HOUR = Decimal(3600)
_HOURS_OF_MONTH = Decimal(730)


class WorstCase(BaseModel):
    """The most a job can cost, and how that was worked out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    usd: Decimal
    """Dollars, rounded up to a cent."""
    usd_per_hour: Decimal
    """All instances together, volumes included."""
    runtime_seconds: int
    """MaxRuntimeInSeconds: the limit over all attempts."""
    as_of: date
    """Day of the prices."""
    approximate: bool
    """Whether the price of this region or type was worked out rather than read."""
    spot_usd: tuple[Decimal, Decimal] | None = None
    """With spot: what the same time is likely to cost, from and to. Assumed, not promised."""

    def describe(self) -> str:
        """Return the worst case as a line of text."""
        circa = "about " if self.approximate else ""
        text = f"at most {circa}{dollars(self.usd)} ({dollars(self.usd_per_hour)} an hour, prices of {self.as_of})"
        if self.spot_usd is None:
            return text
        low, high = self.spot_usd
        return f"{text}; as spot likely {dollars(low)} to {dollars(high)}, which is assumed and not promised"


def hourly(chosen: Instance, compute: Compute, region: str) -> Decimal:
    """Return what an hour of all instances costs on demand, with their volumes."""
    gigabytes = compute.volume_gb if chosen.disk_gb is None else 0  # a disk built in is in the price
    volume = Decimal(about()["volume_usd_per_gb_month"]) * gigabytes / _HOURS_OF_MONTH
    return (price(chosen, region).usd_per_hour + volume) * compute.instance_count


def worst_case(
    chosen: Instance,
    compute: Compute,
    region: str,
    runtime_seconds: int,
) -> WorstCase:
    """Return the most a job can cost: it runs to its limit, and stops as slowly as it may.

    Time spent waiting for capacity costs nothing, and retries count towards the same limit.
    """
    rate = hourly(chosen, compute, region)
    usd = (rate * (runtime_seconds + STOP_GRACE_SECONDS) / _HOUR).quantize(CENT, ROUND_UP)
    listed = price(chosen, region)
    return WorstCase(
        usd=usd,
        usd_per_hour=rate.quantize(Decimal("0.0001")),
        runtime_seconds=runtime_seconds,
        as_of=listed.as_of,
        approximate=listed.approximate,
        spot_usd=_spot_range(usd) if compute.spot else None,
    )


def runtime_for(usd: Decimal, chosen: Instance, compute: Compute, region: str) -> int:
    """Return the seconds a job may run for so many dollars; raises ValueError when that is too short to train."""
    rate = hourly(chosen, compute, region)
    usd = usd.quantize(CENT, ROUND_FLOOR)
    affordable = (usd / rate * _HOUR).to_integral_value(ROUND_FLOOR)
    seconds = int(affordable) - STOP_GRACE_SECONDS
    if seconds < SHORTEST_MINUTES * 60:
        least = worst_case(chosen, compute, region, SHORTEST_MINUTES * 60).usd
        raise ValueError(
            f"{dollars(usd)} pays for {max(0, seconds) // 60} minutes of {chosen.name} at {dollars(rate)} an hour, "
            f"which is too short to train anything; allow at least {dollars(least)}, or choose a cheaper instance type"
        )
    return seconds


def actual(
    chosen: Instance,
    instance_count: int,
    region: str,
    billable_seconds: int,
) -> Decimal:
    """Return what a job cost, by the list price.

    `billable_seconds` is BillableTimeInSeconds, in which the service has counted the spot saving already:
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
    """
    usd = price(chosen, region).usd_per_hour * instance_count * billable_seconds / _HOUR
    return usd.quantize(Decimal("0.0001"), ROUND_HALF_UP)


def dollars(usd: Decimal) -> str:
    """Return an amount as people write it; less than ten cents with the digits that matter."""
    places = CENT if usd == 0 or usd >= Decimal("0.1") else Decimal("0.0001")
    return f"${usd.quantize(places, ROUND_HALF_UP):,}"


def _spot_range(usd: Decimal) -> tuple[Decimal, Decimal]:
    least, most = (Decimal(saving) for saving in about()["spot_saving"])
    return (usd * (1 - most)).quantize(CENT, ROUND_UP), (usd * (1 - least)).quantize(CENT, ROUND_UP)
