"""Whether the time of an endpoint is over."""

from datetime import datetime, timedelta

from orchestrator.endpoints.deployment import Lease

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


def why_expired(
    lease: Lease,
    created: datetime,
    last_used: datetime | None,
    now: datetime,
) -> str | None:
    """Return why an endpoint may be deleted; None while its lease lasts.

    `last_used` is None where that is not known: nobody may call an endpoint idle that does not say so.
    """
    if lease.ttl_seconds is not None and now - created >= timedelta(seconds=lease.ttl_seconds):
        return f"its time of {duration_text(lease.ttl_seconds)} is over"
    if lease.idle_seconds is None or last_used is None:
        return None
    if now - last_used >= timedelta(seconds=lease.idle_seconds):
        return f"nobody has called it for {duration_text(lease.idle_seconds)}"
    return None


def duration_text(seconds: int) -> str:
    """Return seconds in the largest unit that divides them, as they are typed: 8h, 90m."""
    for size, unit in _UNITS:
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
