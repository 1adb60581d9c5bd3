"""Eight requests at once, each with an adapter of its own."""

from statistics import median

from benchmarks.serving.materials import Materials, Model
from benchmarks.serving.ours import EIGHT_ROWS, Ours, Seeds
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.theirs import AllResident, LoadUnload
from benchmarks.serving.turns import Seconds, in_turns, medians, ratio

BATCH = 8
COLD, WARM = "ours with the adapters on disk", "ours"
EACH_LOADED = "load and unload for each request"
RESIDENT = "all resident, set_adapters"
LOADED_BAR = 2.0
RESIDENT_BAR = 1.4
MIXED, BASE, SAME = "eight adapters", "no adapter", "one adapter"
MIXED_BAR = 1.3


def eight(materials: Materials) -> Found:
    """Eight requests with eight adapters, against diffusers in both ways."""
    figures = []
    notes = []
    for model in materials.measured:
        seconds = eight_seconds(materials, model)
        for ours, name in ((WARM, model.name), (COLD, f"{model.name}, adapters on disk")):
            for other, bar in ((EACH_LOADED, LOADED_BAR), (RESIDENT, RESIDENT_BAR)):
                figures.append(
                    Figure(
                        what=f"against {other}, {name}",
                        value=ratio(seconds, other, ours),
                        unit="x",
                        bar=bar if ours == WARM else None,
                        at_least=True,
                    )
                )
        notes.append(f"{model.name}, {model.steps} steps, {model.size} pixels, a request: {medians(seconds, BATCH)}.")
    notes.append("Prompts are new in each round; encoding them, decoding the pictures and waiting are part of all.")
    return Found(figures=tuple(figures), notes=tuple(notes))


def eight_seconds(materials: Materials, model: Model) -> Seconds:
    """Return the seconds of eight requests by each side."""
    folders = materials.adapters(model, 2 * BATCH)
    own = Seeds()
    loading = LoadUnload(model, folders)
    resident = AllResident(model, folders[:BATCH])
    with Ours(model) as ours, Ours(model, slots=BATCH, memory=0) as forgetful:
        names = ours.register(folders[:BATCH])
        all_names = forgetful.register(folders)

        def from_disk(number: int) -> None:
            first = BATCH * (number % 2)  # those of the round before fill all slots, and nothing else is kept
            forgetful.draw(own.requests(all_names[first : first + BATCH]))

        variants = {
            WARM: lambda _: ours.draw(own.requests(names)),
            COLD: from_disk,
            EACH_LOADED: lambda _: loading.draw(own.requests(names)),
            RESIDENT: lambda _: resident.draw(own.requests(names)),
        }
        return in_turns(variants, materials.number(9, 1), warm_up=materials.number(1, 0))


def mixed(materials: Materials) -> Found:
    """A batch of eight adapters, against a batch of the base model."""
    figures = []
    notes = []
    for model in materials.measured:
        own = Seeds()
        with Ours(model, rows=EIGHT_ROWS) as ours, Ours(model, rows=EIGHT_ROWS) as untouched:
            seconds = mixed_seconds(ours, untouched, own, materials)
            drawn = ours.draw(own.requests(ours.names))
        time = ratio(seconds, MIXED, BASE)
        figures.append(Figure(what=f"time, {model.name}", value=time, unit="x", bar=MIXED_BAR))
        together = median(one.largest_batch for one in drawn)
        notes.append(f"{model.name}: {medians(seconds)}; {together:.0f} requests share a step.")
    return Found(figures=tuple(figures), notes=tuple(notes))


def mixed_seconds(ours: Ours, untouched: Ours, own: Seeds, materials: Materials) -> Seconds:
    """Return the seconds of a batch with different adapters, of one, and without any by a server that had none."""
    names = ours.register(materials.adapters(ours.model, BATCH))
    variants = {
        MIXED: lambda _: ours.draw(own.requests(names)),
        BASE: lambda _: untouched.draw(own.requests([None] * BATCH)),
        SAME: lambda _: ours.draw(own.requests(names[:1] * BATCH)),
    }
    return in_turns(variants, materials.number(15, 1))
