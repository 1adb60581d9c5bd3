"""What the lists of the service have in common: filters, order, pages."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .pages import page

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

_PAGE = 10  # the service's default


def listed(
    simulator: "SageMakerSimulator", known: Iterable[Any], asked: dict[str, Any], order: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the summaries of a page of what has `name`, `created`, `modified` and `status`, and the NextToken."""
    listed_until = simulator.clock.now() - timedelta(seconds=simulator.list_lag_seconds)
    items = sorted(
        (one for one in known if one.created <= listed_until), key=_SORTS[asked.get("SortBy", "CreationTime")]
    )
    if asked.get("SortOrder", order) == "Descending":
        items.reverse()
    found, token = page([one for one in items if _is_asked_for(one, asked)], asked, default=_PAGE)
    # The service takes a page first and applies StatusEquals to it: pages may be short, or empty with a NextToken.
    return [one.summary() for one in found if asked.get("StatusEquals") in {None, one.status}], token


def _is_asked_for(item: Any, asked: dict[str, Any]) -> bool:
    bounds = {"CreationTime": item.created, "LastModifiedTime": item.modified or item.created}
    for name, moment in bounds.items():
        if f"{name}After" in asked and moment <= _moment(asked[f"{name}After"]):
            return False
        if f"{name}Before" in asked and moment >= _moment(asked[f"{name}Before"]):
            return False
    return str(asked.get("NameContains", "")).lower() in item.name.lower()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_SORTS: dict[str, Callable[[Any], Any]] = {
    "Name": lambda item: item.name,
    "CreationTime": lambda item: item.created,
    "Status": lambda item: item.status,
}
