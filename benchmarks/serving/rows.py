"""The rows of the table: their titles and the functions that measure them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.serving import (
    batches,
    fuzzing,
    hostile,
    memory,
    overhead,
    overload,
    pictures,
    soundness,
    swaps,
    traces,
)
from benchmarks.serving.materials import Materials
from benchmarks.serving.results import Found


class Measure(NamedTuple):
    """A row."""

    title: str
    function: Callable[[Materials], Found]


ROWS: Mapping[str, Measure] = {
    "parity": Measure("picture for one request, ours against plain diffusers", pictures.parity),
    "batch": Measure("the same request alone, and in a batch of 8 different adapters", pictures.batch),
    "ready": Measure("adapter from disk ready, against load and unload", swaps.ready),
    "switch": Measure("switch to a resident adapter, against load and unload", swaps.switch),
    "eight": Measure("8 requests with 8 adapters", batches.eight),
    "mixed": Measure("mixed batch of 8 against a base batch of 8", batches.mixed),
    "registered": Measure(f"call with {swaps.REGISTERED} adapters registered, against 1", swaps.registered),
    "overhead": Measure("HTTP and queue overhead per request, median", overhead.overhead),
    "base-weights": Measure("base weights after 1,000 loads and evictions", soundness.base_weights),
    "memory": Measure("memory after 1,000 adapter swaps against after 50", memory.growth),
    "ending": Measure("SIGTERM under load", overload.ending),
    "overload": Measure("10x overload for 60 s", overload.overload),
    "poisson": Measure("Poisson arrivals, against a serial server of the same engine", traces.poisson),
    "zipf": Measure(f"{traces.ADAPTERS}-adapter Zipf trace", traces.zipf),
    "wrong-answers": Measure(
        "10,000 fuzzed requests with adapters added, replaced and deleted meanwhile", soundness.wrong_answers
    ),
    "hostile": Measure("hostile adapters and bodies", hostile.hostile),
    "fuzzed": Measure("5,000 schema-fuzzed requests", fuzzing.fuzzed),
}
"""By name, the cheap ones first."""
