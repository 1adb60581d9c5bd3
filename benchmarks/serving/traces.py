"""Requests as they come: many adapters, a few of them asked for often; at random moments."""

import random
import time
from concurrent.futures import Future
from functools import partial
from statistics import mean, median
from typing import NamedTuple

from benchmarks.serving.batches import EACH_LOADED, LOADED_BAR, RESIDENT, WARM
from benchmarks.serving.materials import Materials, Model
from benchmarks.serving.ours import SERIAL_ROWS, Ours, Request, Seeds
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.theirs import AllResident, LoadUnload
from benchmarks.serving.turns import Seconds, in_turns, medians, percentile, ratio
from entrypoints.serving.worker import Drawn

ADAPTERS = 200
RESIDENT_BAR = 3.0
PIECE = 16
"""Requests of a trace that are drawn before the other side has its turn."""
LOADS = (0.3, 0.7, 1.2)
"""Requests that arrive in the time that a serial server takes for one alone."""
OVERLOADED_BAR = 1.3
OURS, SERIAL = "ours", "serial"


def zipf(materials: Materials) -> Found:
    """A trace of 200 adapters with Zipf's frequencies, all in line from the start, against both baselines."""
    figures = []
    notes = []
    for model in reversed(materials.measured):
        traced = zipf_seconds(materials, model)
        for other, bar in ((EACH_LOADED, LOADED_BAR), (RESIDENT, RESIDENT_BAR)):
            times = ratio(traced.seconds, other, WARM)
            figures.append(Figure(what=f"against {other}, {model.name}", value=times, unit="x", bar=bar, at_least=True))
        notes.append(
            f"{model.name}, {model.steps} steps, {len(traced.trace)} requests for {len(set(traced.trace))} of"
            f" {traced.adapters} adapters, a request: {medians(traced.seconds, traced.length)}. Making all resident"
            f" took diffusers {traced.preparing:.0f} s beforehand; ours began with none in memory."
        )
    return Found(figures=tuple(figures), notes=tuple(notes))


class Traced(NamedTuple):
    """A trace that was drawn in pieces."""

    trace: list[str]
    """Adapters of its requests."""
    adapters: int
    """Adapters that there are."""
    length: int
    """Requests of a piece."""
    seconds: Seconds
    """Of each piece."""
    preparing: float
    """Seconds that making all resident took."""


def zipf_seconds(materials: Materials, model: Model) -> Traced:
    """Return the seconds of the pieces of a trace by each side."""
    pieces = materials.number(6, 1)
    length = materials.number(PIECE, 4)
    count = materials.number(ADAPTERS, 6)
    folders = materials.adapters(model, count)
    trace = zipf_names(count, length * pieces)
    requests = Seeds().requests(trace)
    loading = LoadUnload(model, folders)
    began = time.perf_counter()
    resident = AllResident(model, folders)
    preparing = time.perf_counter() - began

    def piece(number: int) -> list[Request]:
        return requests[length * number :][:length]

    with Ours(model) as ours:
        ours.register(folders)
        variants = {
            WARM: lambda number: ours.draw(piece(number)),
            EACH_LOADED: lambda number: loading.draw(piece(number)),
            RESIDENT: lambda number: resident.draw(piece(number)),
        }
        seconds = in_turns(variants, pieces, warm_up=0)
    return Traced(trace, count, length, seconds, preparing)


def zipf_names(count: int, requests: int) -> list[str]:
    """Return adapters of requests: the k-th most wanted is asked for 1/k times as often as the first."""
    dice = random.Random(0)  # noqa: S311 - a trace
    weights = [1 / place for place in range(1, count + 1)]
    return [str(name) for name in dice.choices(range(count), weights, k=requests)]


class Served(NamedTuple):
    """What became of the requests of a stretch of time."""

    responses: list[float]
    """Seconds from arrival to picture."""
    waits: list[float]
    """Seconds from arrival to the first step."""
    seconds: float
    """From the first arrival to the last picture."""

    @property
    def throughput(self) -> float:
        """Pictures a second."""
        return len(self.responses) / self.seconds


def poisson(materials: Materials) -> Found:
    """Requests of eight adapters at random moments, against the same engine drawing one after the other."""
    model = materials.builtin
    folders = materials.adapters(model, 8)
    stretches = materials.number(3, 1)
    arrivals = materials.number(40, 3)
    figures = []
    notes = []
    with Ours(model) as ours, Ours(model, rows=SERIAL_ROWS) as serial:
        sides = {OURS: ours, SERIAL: serial}
        for side in sides.values():
            side.draw([Request(0, name) for name in side.register(folders)])
        alone = in_turns({SERIAL: lambda number: serial.draw([Request(number, "0")])}, materials.number(9, 1))
        capacity = 1 / median(alone[SERIAL])
        notes.append(f"{model.name}, {model.steps} steps: one request alone takes {1000 / capacity:.0f} ms.")
        for load in LOADS:
            served: dict[str, list[Served]] = {name: [] for name in sides}
            for stretch in range(stretches):
                for name, side in sides.items():
                    served[name].append(serve(side, moments(arrivals, load * capacity, stretch)))
            figures += poisson_figures(load, served)
            notes.append(f"At {load}: {described(served)}.")
    notes.append(f"{stretches} stretches of {arrivals} arrivals at each rate, in turns, the same for both sides.")
    return Found(figures=tuple(figures), notes=tuple(notes))


def moments(count: int, rate: float, seed: int) -> list[float]:
    """Return when requests arrive: with times between them that are exponential."""
    dice = random.Random(seed)  # noqa: S311 - arrivals
    now = 0.0
    found = []
    for _ in range(count):
        found.append(now)
        now += dice.expovariate(rate)
    return found


def serve(side: Ours, arrivals: list[float]) -> Served:
    """Order an image at each moment, in real time, and wait for all."""
    ordered: list[tuple[float, Future[Drawn]]] = []
    ended: dict[int, float] = {}

    def note(number: int, _: "Future[Drawn]") -> None:
        ended[number] = time.monotonic()

    began = time.monotonic()
    for number, moment in enumerate(arrivals):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        (future,) = side.order([Request(number, str(number % 8))])
        future.add_done_callback(partial(note, number))
        ordered.append((began + moment, future))
    waits = [future.result().waited for _, future in ordered]
    responses = [ended[number] - moment for number, (moment, _) in enumerate(ordered)]
    return Served(responses, waits, max(ended.values()) - began)


def poisson_figures(load: float, served: dict[str, list[Served]]) -> list[Figure]:
    """Return how ours compares at one rate of arrivals."""
    response = {name: mean(seconds for one in found for seconds in one.responses) for name, found in served.items()}
    throughput = {name: median(one.throughput for one in found) for name, found in served.items()}
    waits = {
        name: percentile([seconds for one in found for seconds in one.waits], 0.99) for name, found in served.items()
    }
    more = throughput[OURS] / throughput[SERIAL]
    slower = response[OURS] / response[SERIAL]
    longer = waits[OURS] / max(waits[SERIAL], 1e-9)
    if load < 1:
        return [Figure(what=f"mean response, at {load}", value=slower, unit="x", bar=1.0)]
    return [
        Figure(what=f"throughput, at {load}", value=more, unit="x", bar=OVERLOADED_BAR, at_least=True),
        Figure(what=f"p99 queue wait, at {load}", value=longer, unit="x", bar=1.0),
        Figure(what=f"mean response, at {load}", value=slower, unit="x"),
    ]


def described(served: dict[str, list[Served]]) -> str:
    """Return the numbers of both sides in words."""
    parts = []
    for name, found in served.items():
        responses = [seconds for one in found for seconds in one.responses]
        waits = [seconds for one in found for seconds in one.waits]
        throughput = median(one.throughput for one in found)
        parts.append(
            f"{name} {throughput:.2f} pictures a second, response {1000 * mean(responses):.0f} ms in the mean and"
            f" {1000 * percentile(responses, 0.99):.0f} ms at p99, queue wait {1000 * median(waits):.0f} ms at p50 and"
            f" {1000 * percentile(waits, 0.99):.0f} ms at p99"
        )
    return "; ".join(parts)
