"""What a server counts, for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/.

SageMaker reads `/metrics` on the port of the server and puts the figures into CloudWatch.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from entrypoints.serving.state import State

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "orchestrator_"
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """Counters and histograms of one server; those that others count already are read when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            _PREFIX + "requests",
            "Requests answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.images = Counter(
            _PREFIX + "images",
            "Images answered with.",
            registry=self.registry,
        )
        self.batch_images = Histogram(
            _PREFIX + "batch_images",
            "Images that share a step.",
            buckets=_COUNTS,
            registry=self.registry,
        )
        self.batch_adapters = Histogram(
            _PREFIX + "batch_adapters",
            "Distinct adapters of the images that share a step.",
            buckets=(0, *_COUNTS),
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            _PREFIX + "step_seconds",
            "Seconds of a step.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            _PREFIX + "queue_seconds",
            "Seconds from the order of an image to its first step.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.load_seconds = Histogram(
            _PREFIX + "load_seconds",
            "Seconds to bring an adapter into a tier.",
            ["tier"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def exposed(self, state: "State") -> bytes:
        """Return all figures in Prometheus's text format."""
        observed = _Observed(state)
        self.registry.register(observed)
        try:
            return generate_latest(self.registry)
        finally:
            self.registry.unregister(observed)


class _Observed(Collector):
    """Figures that the parts of a server keep themselves."""

    def __init__(self, state: "State") -> None:
        self.state = state

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        state = self.state
        worker = state.worker
        yield GaugeMetricFamily(_PREFIX + "queue_images", "Images that wait.", state.waiting)
        yield GaugeMetricFamily(
            _PREFIX + "admitted_requests",
            "Requests that are being answered.",
            state.admitted,
        )
        if worker is None:
            return
        service = state.service
        yield GaugeMetricFamily(
            _PREFIX + "drawing_images",
            "Images that are drawn.",
            worker.drawing,
        )
        yield GaugeMetricFamily(
            _PREFIX + "adapters",
            "Adapters that are known.",
            len(service.library),
        )
        tiers = {"slot": worker.slots, "memory": service.cache, "disk": service.disk}
        hits = CounterMetricFamily(
            _PREFIX + "adapter_hits",
            "Adapters that were found.",
            labels=["tier"],
        )
        reads = CounterMetricFamily(
            _PREFIX + "adapter_reads",
            "Adapters that were brought in.",
            labels=["tier"],
        )
        evictions = CounterMetricFamily(
            _PREFIX + "evictions",
            "Adapters that made room.",
            labels=["tier"],
        )
        for name, tier in tiers.items():
            hits.add_metric([name], tier.hits)
            reads.add_metric([name], tier.reads)
            evictions.add_metric([name], tier.evictions)
        yield from (hits, reads, evictions)
        held = GaugeMetricFamily(_PREFIX + "held_bytes", "Bytes of adapters.", labels=["tier"])
        for name, tier in tiers.items():
            held.add_metric([name], tier.bytes)
        yield held
