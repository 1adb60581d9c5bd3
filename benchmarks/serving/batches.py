"""Eight requests at once, each with an adapter of its own."""

from collections.abc import Sequence
from statistics import median

from benchmarks.serving.materials import Materials
from benchmarks.serving.ours import EIGHT_ROWS, Ours, Seeds
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.theirs import AllResident, LoadUnload
from benchmarks.serving.turns import Seconds, in_turns, medians, ratio

BATCH = 8
COLD, WARM = "ours, adapters on disk", "ours"
EACH_LOADED = "load and unload for each request"
RESIDENT = "all resident, set_adapters"
LOADED_BAR = 2.0
RESIDENT_BAR = 1.4
MIXED, BASE = "eight adapters", "no adapter"
MIXED_BAR = 1.3


def eight(materials: Materials) -> Found:
    """Eight requests with eight adapters, against diffusers in both ways."""
    figures = []
    notes = []
    rounds = materials.number(9, 1)
    for model in materials.measured:
        folders = materials.adapters(model, 2 * BATCH)
        fresh_requests = Seeds()
        names: Sequence[str]
        with Ours(model) as ours, Ours(model, slots=BATCH, memory=0) as forgetful:
            names = ours.register(folders[:BATCH])
            forgetful.register(folders)
            loading = LoadUnload(model, folders)
            resident = AllResident(model, folders[:BATCH])

            def cold(number: int, ours: Ours = forgetful, fresh_requests: Seeds = fresh_requests) -> None:
                first = BATCH * (number % 2)  # those of the round before take all slots, and nothing else is kept
                ours.draw(fresh_requests.requests([str(first + place) for place in range(BATCH)]))

            variants = {
                WARM: lambda _, ours=ours, names=names, own=fresh_requests: ours.draw(own.requests(names)),
                COLD: cold,
                EACH_LOADED: lambda _, side=loading, names=names, own=fresh_requests: side.draw(own.requests(names)),
                RESIDENT: lambda _, side=resident, names=names, own=fresh_requests: side.draw(own.requests(names)),
            }
            seconds = in_turns(variants, rounds, warm_up=materials.number(1, 0))
        figures += compared(seconds, WARM, model.name, (EACH_LOADED, LOADED_BAR), (RESIDENT, RESIDENT_BAR))
        figures += compared(seconds, COLD, f"{model.name}, adapters on disk", (EACH_LOADED, None))
        notes.append(f"{model.name}, {model.steps} steps, {model.size} pixels, a request: {medians(seconds, BATCH)}.")
    notes.append("Prompts are new in each round; encoding them, decoding the pictures and waiting are part of all.")
    return Found(figures=tuple(figures), notes=tuple(notes))


def compared(seconds: Seconds, ours: str, name: str, *others: tuple[str, float | None]) -> list[Figure]:
    """Return how many times as fast ours is as each other variant."""
    figures = []
    for other, bar in others:
        times = ratio(seconds, other, ours)
        figures.append(Figure(what=f"against {other}, {name}", value=times, unit="x", bar=bar, at_least=True))
    return figures


def mixed(materials: Materials) -> Found:
    """A batch of eight adapters, against a batch of the base model."""
    figures = []
    notes = []
    rounds = materials.number(15, 1)
    for model in materials.measured:
        fresh_requests = Seeds()
        with Ours(model, rows=EIGHT_ROWS) as ours, Ours(model, rows=EIGHT_ROWS) as untouched:
            names = ours.register(materials.adapters(model, BATCH))
            variants = {
                MIXED: lambda _, ours=ours, names=names, own=fresh_requests: ours.draw(own.requests(names)),
                BASE: lambda _, ours=untouched, own=fresh_requests: ours.draw(own.requests([None] * BATCH)),
                "one adapter": lambda _, ours=ours, own=fresh_requests: ours.draw(own.requests(["0"] * BATCH)),
            }
            seconds = in_turns(variants, rounds)
            drawn = ours.draw(fresh_requests.requests(names))
        figures.append(Figure(what=f"time, {model.name}", value=ratio(seconds, MIXED, BASE), unit="x", bar=MIXED_BAR))
        together = median(one.largest_batch for one in drawn)
        notes.append(f"{model.name}: {medians(seconds)}; {together:.0f} requests share a step.")
    return Found(figures=tuple(figures), notes=tuple(notes))
