"""Delete endpoints, in the order that leaves nothing behind, and what interrupted deployments have left.

What makes instances goes first, then what runs on them, then what they were made from. Whatever the order is cut off
at, the next call finds the rest by its tags.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

from orchestrator.aws.client import Aws
from orchestrator.contract.command_line import command
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.description import Describer, Found, Now
from orchestrator.endpoints.sagemaker.hosted import (
    COMPONENT,
    CONFIG,
    ENDPOINT,
    MODEL,
    Hosted,
    Kind,
    Summary,
    configuration_of,
)
from orchestrator.endpoints.sagemaker.logs import delete_logs
from orchestrator.endpoints.sagemaker.names import alarms_of, base_component, endpoint_of_alarm, is_hashed, name_part
from orchestrator.endpoints.sagemaker.scaler import Scaler
from orchestrator.endpoints.sagemaker.tags import BLUEPRINT_TAG, Record, read_record
from orchestrator.errors import ConflictError, EndpointError
from orchestrator.requests import ENDPOINT_TAG

_YOUNG = timedelta(hours=1)
"""What is younger may belong to a deployment that is under way."""
_DELETING_SECONDS = 1800.0
"""Longest wait for something that is being changed or deleted."""


class Removal:
    """Deletes what belongs to endpoints."""

    def __init__(
        self,
        aws: Aws,
        hosted: Hosted,
        scaler: Scaler,
        describer: Describer,
        now: Now,
        pause: Callable[[], float],
    ) -> None:
        self._aws = aws
        self._hosted = hosted
        self._scaler = scaler
        self._describer = describer
        self._now = now
        self._pause = pause
        """Waits, and returns the seconds that it has waited."""

    def delete(self, name: str, *, keep_logs: bool = False) -> list[str]:
        """Delete an endpoint and everything that was created for it; return what is gone. Idempotent."""
        found = self._describer.find(name)
        gone = []
        if found is not None:
            gone += self._stop(found)
        self._scaler.delete_alarms(alarms_of(name))
        left = []
        for kind in (CONFIG, MODEL):
            for own in self._of(kind, name):
                left.append((kind, own.name))
        existed = found is not None or left
        if existed and not keep_logs:
            gone += self._delete_logs(name)
        for kind, one in left:  # last: by them `leftovers` finds what else is there
            if self._hosted.delete(kind, one):
                gone.append(f"{kind.noun} {one}")
        return gone

    def _delete_logs(self, endpoint: str) -> list[str]:
        deleted = []
        for group in delete_logs(self._aws, endpoint):
            deleted.append(f"log group {group}")
        return deleted

    def delete_replaced(self, found: Found) -> None:
        """Delete configurations and models that were in use before an update."""
        in_use = configuration_of(found.described)
        used = self._hosted.find(CONFIG, in_use)
        if used is None:
            return
        variant = used["ProductionVariants"][0]
        models = self._models_of(found.record, variant.get("ModelName"))
        self._delete_older(CONFIG, found.record.name, {used["EndpointConfigName"]})
        self._delete_older(MODEL, found.record.name, models)

    def _delete_older(self, kind: Kind, endpoint: str, kept: set[str]) -> None:
        """Delete what of a kind an endpoint had before the newest that is kept; nothing where none of these exists."""
        created_of_kept = []
        others = []
        for one in self._of(kind, endpoint):
            if one.name in kept:
                created_of_kept.append(one.created)
            else:
                others.append(one)
        if not created_of_kept:
            return
        newest = max(created_of_kept)
        for one in others:
            if one.created < newest:  # what is newer belongs to a deployment that is under way
                self._hosted.delete(kind, one.name)

    def leftovers(self) -> Iterator[str]:
        """Delete what is of no endpoint, or of none of an endpoint's configurations, and yield what it was."""
        used: dict[str, set[str]] = {}
        for kind in (CONFIG, MODEL):
            for one in self._old(kind):
                tags = self._hosted.tags(one.arn)
                endpoint = tags.get(ENDPOINT_TAG)
                if endpoint is None:
                    continue
                if endpoint not in used:
                    used[endpoint] = self._used_by(endpoint)
                    if not used[endpoint]:  # it is gone
                        yield from self._delete_logs(endpoint)
                if one.name in used[endpoint] or tags.get(BLUEPRINT_TAG) in used[endpoint]:
                    continue
                if self._hosted.delete(kind, one.name):
                    yield f"{kind.noun} {one.name}"
        yield from self._delete_alarms()

    def _old(self, kind: Kind) -> Iterator[Summary]:
        """Yield what deployments have created of a kind, without what may belong to one that is under way."""
        for one in self._hosted.listed(kind):
            if not is_hashed(one.name):
                continue
            age = self._now() - one.created
            if age >= _YOUNG:
                yield one

    def _delete_alarms(self) -> Iterator[str]:
        """Delete the alarms of endpoints that do not exist, and yield what they were."""
        for alarm in self._scaler.alarms():
            endpoint = endpoint_of_alarm(alarm)
            if endpoint is None:
                continue
            if self._hosted.find(ENDPOINT, endpoint) is None:
                self._scaler.delete_alarms([alarm])
                yield f"alarm {alarm}"

    def components(self, endpoint: str, names: Iterable[str]) -> list[str]:
        """Delete components of an endpoint and wait until they are gone; return what is gone. Idempotent."""
        base = base_component(endpoint)
        in_order = sorted(names, key=lambda name: name == base)  # adapters hang on their base
        gone = []
        for name in in_order:
            if name != base:
                self._begin_deleting(COMPONENT, name)
        for name in in_order:
            self._until_gone(COMPONENT, name)
            gone.append(f"inference component {name}")
        return gone

    def _stop(self, found: Found) -> list[str]:
        """Delete what is billed of an endpoint and wait until it is gone."""
        record = found.record
        gone = []
        self._scaler.stop(record)
        if record.mode is Mode.COMPONENTS:
            names = [one.name for one in self._hosted.components_of(record.name)]
            gone += self.components(record.name, names)
        self._until_gone(ENDPOINT, record.name)
        return [*gone, f"endpoint {record.name}"]

    def _begin_deleting(self, kind: Kind, name: str) -> bool:
        """Begin to delete something; return whether it is gone or on its way, and not being changed just now."""
        try:
            self._hosted.delete(kind, name)
        except ConflictError:
            return False
        return True

    def _until_gone(self, kind: Kind, name: str) -> None:
        """Delete something and wait until it is gone; what is being changed is deleted when that has ended."""
        waited = 0.0
        begun = self._begin_deleting(kind, name)
        while self._hosted.find(kind, name) is not None:
            if waited > _DELETING_SECONDS:
                raise EndpointError(
                    f"The {kind.noun} {name} is still being changed or deleted; the rest is not deleted yet.",
                    next_step=command("endpoints", "gc"),
                )
            waited += self._pause()
            if not begun:
                begun = self._begin_deleting(kind, name)

    def _of(self, kind: Kind, endpoint: str) -> list[Summary]:
        """Return what of a kind belongs to an endpoint."""
        own = []
        for one in self._hosted.listed(kind, NameContains=name_part(endpoint)):
            tags = self._hosted.tags(one.arn)
            if tags.get(ENDPOINT_TAG) == endpoint:
                own.append(one)
        return own

    def _used_by(self, endpoint: str) -> set[str]:
        """Return the names of the configurations and models that an endpoint has, or is being updated to.

        The hash of its blueprint is among them: components that are not there yet will be of models with that tag.
        """
        described = self._hosted.find(ENDPOINT, endpoint)
        if described is None:
            return set()
        names = set()
        record = read_record(self._hosted.tags(described["EndpointArn"]))
        if record is not None:
            names.add(record.blueprint)
        current = described["EndpointConfigName"]
        wanted = configuration_of(described)
        for config_name in (current, wanted):
            names.add(config_name)
            config = self._hosted.find(CONFIG, config_name) or {}
            for variant in config.get("ProductionVariants", []):
                names.add(variant.get("ModelName", ""))
        for one in self._hosted.components_of(endpoint):
            component = self._hosted.find(COMPONENT, one.name) or {}
            specification = component.get("Specification", {})
            names.add(specification.get("ModelName", ""))
        return names

    def _models_of(self, record: Record, of_variant: str | None) -> set[str]:
        """Return the names of the models that an endpoint uses."""
        if of_variant is not None:
            return {of_variant}
        name = base_component(record.name)
        base = self._hosted.find(COMPONENT, name) or {}
        specification = base.get("Specification", {})
        return {specification.get("ModelName", "")}
