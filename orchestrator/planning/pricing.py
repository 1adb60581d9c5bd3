"""What a job costs: its worst case before it starts, the actual cost afterwards. All money is Decimal US dollars.

A job is billed until its result is uploaded, after the limit has stopped it, and the service promises no upper end to
that. The worst case therefore holds the time to stop and an allowance for the upload, and is no promise.
"""

from datetime import date
from decimal import ROUND_FLOOR, ROUND_HALF_UP, ROUND_UP, Decimal

from pydantic import BaseModel, ConfigDict

from orchestrator.aws.instances import Instance, about, price, prices_as_of
from orchestrator.contract.environment import STOP_GRACE_SECONDS
from orchestrator.contract.plurals import counted
from orchestrator.planning.duration import Duration
from orchestrator.specs.compute import SHORTEST_MINUTES, Compute

CENT = Decimal("0.01")
_FRACTION = Decimal("0.0001")
_HOUR = Decimal(3600)
_HOURS_OF_MONTH = Decimal(730)
_BUCKET_USD_PER_GB_MONTH = Decimal("0.023")  # S3 Standard in us-east-1: https://aws.amazon.com/s3/pricing/


class WorstCase(BaseModel):
    """The most a job costs as far as its time limit decides, with the figures it was computed from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: Decimal | None
    """Dollars, rounded up to a cent; None when no price of the instance type is known."""
    usd_per_hour: Decimal | None
    """Price of an hour of all instances together, volumes included; None when no price is known."""
    runtime_seconds: int
    """MaxRuntimeInSeconds: the limit over all attempts."""
    upload_seconds: int
    """Allowance for uploading the result after the job was stopped."""
    as_of: date
    """Date of the price list."""
    approximate: bool
    """Whether the price of this region or type is an estimate."""
    spot_usd: tuple[Decimal, Decimal] | None = None
    """With spot: low and high end of the likely cost of the same time. An assumption, not a promise."""

    def limit(self) -> str:
        """Return the worst case alone, in a few words."""
        if self.usd is None:
            return "no price is known"
        return f"at most {dollars(self.usd)}"

    def describe(self) -> str:
        """Return the worst case as a line of text."""
        if self.usd is None or self.usd_per_hour is None:
            return f"unknown: the price list of {self.as_of} has no price of this instance type"
        most = dollars(self.usd)
        if self.approximate:
            most = f"about {most}"
        hour = dollars(self.usd_per_hour)
        allowed_seconds = STOP_GRACE_SECONDS + self.upload_seconds
        minutes = allowed_seconds / 60
        allowance = f"{counted(minutes, 'minute')} to stop and upload included, which may take longer"
        details = f"({hour} an hour, prices of {self.as_of}; {allowance})"
        if self.spot_usd is None:
            return f"at most {most} by its limit {details}"
        low, high = self.spot_usd
        saved = f"{dollars(low)} to {dollars(high)} with the usual saving of spot, which is not promised"
        return f"at its limit {saved}, and at most {most}, without any saving {details}"


def hourly(chosen: Instance, compute: Compute, region: str) -> Decimal | None:
    """Return what an hour of all instances costs on demand, with their volumes; None when no price is known."""
    listed = price(chosen, region)
    if listed is None:
        return None
    usd_per_hour = listed.usd_per_hour
    if chosen.disk_gb is None:  # the price of a built-in disk is part of the instance's
        facts = about()
        usd_per_gb_month = Decimal(facts["volume_usd_per_gb_month"])
        usd_per_month = usd_per_gb_month * compute.volume_gb
        usd_per_hour += usd_per_month / _HOURS_OF_MONTH
    return usd_per_hour * compute.instance_count


def worst_case(
    chosen: Instance,
    compute: Compute,
    region: str,
    runtime_seconds: int,
    upload_seconds: int,
) -> WorstCase:
    """Return what a job costs that runs to its limit, uses the whole grace period to stop, and uploads its result.

    Time spent waiting for capacity costs nothing, and retries count towards the same limit.
    """
    listed = price(chosen, region)
    rate = hourly(chosen, compute, region)
    if listed is None or rate is None:
        return WorstCase(
            usd=None,
            usd_per_hour=None,
            runtime_seconds=runtime_seconds,
            upload_seconds=upload_seconds,
            as_of=prices_as_of(),
            approximate=True,
        )
    usd = _most(rate, runtime_seconds + upload_seconds)
    spot_usd = None
    if compute.spot:
        spot_usd = _spot_range(usd)
    return WorstCase(
        usd=usd,
        usd_per_hour=rate.quantize(_FRACTION),
        runtime_seconds=runtime_seconds,
        upload_seconds=upload_seconds,
        as_of=listed.as_of,
        approximate=listed.approximate,
        spot_usd=spot_usd,
    )


def likely_cost(
    chosen: Instance,
    compute: Compute,
    region: str,
    duration: Duration,
) -> tuple[Decimal, Decimal] | None:
    """Return what a job is likely to cost, low and high end; as spot by the largest and the least usual saving.

    None when no price of the instance type is known.
    """
    rate = hourly(chosen, compute, region)
    if rate is None:
        return None
    low = rate * duration.low_seconds / _HOUR
    high = rate * duration.high_seconds / _HOUR
    if compute.spot:
        low, _ = _spot_range(low)
        _, high = _spot_range(high)
    return low.quantize(_FRACTION, ROUND_UP), high.quantize(_FRACTION, ROUND_UP)


def runtime_for(
    usd: Decimal,
    chosen: Instance,
    compute: Compute,
    region: str,
    upload_seconds: int,
) -> int:
    """Return the seconds that a budget of `usd` pays for.

    Raises ValueError when that is too short to train, and when no price of the instance type is known.
    """
    rate = hourly(chosen, compute, region)
    if rate is None:
        what = f"no price of {chosen.name} is known, so {dollars(usd)} cannot be turned into a time limit"
        raise ValueError(f"{what}; leave the budget out and set max_runtime_minutes, or choose another instance type")
    usd = usd.quantize(CENT, ROUND_FLOOR)
    affordable = usd / rate * _HOUR
    billed_seconds = int(affordable.to_integral_value(ROUND_FLOOR))
    seconds = billed_seconds - STOP_GRACE_SECONDS - upload_seconds
    shortest = SHORTEST_MINUTES * 60
    if seconds >= shortest:
        return seconds
    least_usd = _most(rate, shortest + upload_seconds)
    minutes = max(0, seconds) // 60
    paid = counted(minutes, "minute")
    what = f"{dollars(usd)} pays for {paid} of {chosen.name} at {dollars(rate)} an hour"
    fix = f"allow at least {dollars(least_usd)}, or choose a cheaper instance type"
    raise ValueError(f"{what}, which is too short to train anything; {fix}")


def storage_per_month(size: int) -> Decimal:
    """Return what that many bytes cost in the bucket for a month."""
    usd = _BUCKET_USD_PER_GB_MONTH * size / 10**9
    return usd.quantize(_FRACTION, ROUND_UP)


def actual(
    chosen: Instance,
    instance_count: int,
    region: str,
    billable_seconds: int,
) -> Decimal | None:
    """Return what a job cost at list price; None when no price is known.

    `billable_seconds` is BillableTimeInSeconds, from which the saving of spot is already subtracted:
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
    """
    listed = price(chosen, region)
    if listed is None:
        return None
    usd_per_hour = listed.usd_per_hour * instance_count
    usd = usd_per_hour * billable_seconds / _HOUR
    return usd.quantize(_FRACTION, ROUND_HALF_UP)


def dollars(usd: Decimal) -> str:
    """Return an amount as text, "$1,234.50"; amounts below ten cents have four decimals."""
    precision = CENT
    if Decimal(0) < usd < Decimal("0.1"):
        precision = _FRACTION
    rounded = usd.quantize(precision, ROUND_HALF_UP)
    return f"${rounded:,}"


def _most(usd_per_hour: Decimal, runtime_seconds: int) -> Decimal:
    """Return the dollars of a run to its limit and of the whole grace period to stop, rounded up to a cent."""
    seconds = runtime_seconds + STOP_GRACE_SECONDS
    usd = usd_per_hour * seconds / _HOUR
    return usd.quantize(CENT, ROUND_UP)


def _spot_range(usd: Decimal) -> tuple[Decimal, Decimal]:
    """Return what spot is likely to cost instead of `usd`, by the least and the largest saving that is usual."""
    facts = about()
    least_saving, largest_saving = facts["spot_saving"]
    low = usd * (1 - Decimal(largest_saving))
    high = usd * (1 - Decimal(least_saving))
    return low.quantize(CENT, ROUND_UP), high.quantize(CENT, ROUND_UP)
