"""Whether the lease of an endpoint has ended."""

from datetime import datetime, timedelta

from orchestrator.contract.plurals import counted
from orchestrator.endpoints.deployment import Lease

_HOUR = 3600


def why_expired(
    lease: Lease,
    created: datetime,
    used: datetime | None,
    now: datetime,
) -> str | None:
    """Return why an endpoint may be deleted; None while its lease lasts."""
    if lease.ttl_seconds is not None and now >= created + timedelta(seconds=lease.ttl_seconds):
        return f"it was to last {span(lease.ttl_seconds)}"
    if lease.idle_seconds is not None and now >= (used or created) + timedelta(seconds=lease.idle_seconds):
        return f"nobody called it for {span(lease.idle_seconds)}"
    return None


def span(seconds: int) -> str:
    """Return a time in whole hours, or else in minutes."""
    if seconds % _HOUR == 0:
        return counted(seconds // _HOUR, "hour")
    return counted(seconds / 60, "minute")
