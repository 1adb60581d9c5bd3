"""What it costs to bring an adapter in, and to switch to one that is in."""

from collections.abc import Sequence
from statistics import median

from benchmarks.serving.materials import Materials, Model
from benchmarks.serving.ours import Ours, Request, weights_of
from benchmarks.serving.pictures import Bare
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.theirs import Plain
from benchmarks.serving.turns import in_turns, medians, ratio
from entrypoints.serving.slots import SlotUse

LOAD, READY = "load_lora_weights and unload_lora_weights", "ours"
READY_BAR = 15.0
SWITCH_BAR = 1000.0
REGISTERED = 500
REGISTERED_BAR = 1.1


def ready(materials: Materials) -> Found:
    """From an adapter on disk to one that the next step draws with."""
    figures = []
    notes = []
    rounds = materials.number(25, 2)
    for model in materials.measured:
        folders = materials.adapters(model, rounds + 1)
        theirs = Plain(model)
        with Ours(model, slots=4) as ours:

            def load_and_unload(number: int, theirs: Plain = theirs, folders: Sequence = folders) -> None:
                theirs.load(folders[number])
                theirs.unload()

            def read_and_place(number: int, ours: Ours = ours, folders: Sequence = folders) -> None:
                served = ours.read(folders[number])
                ours.worker.slots.release(ours.worker.slots.hold(served.key, weights_of(served)))

            seconds = in_turns({LOAD: load_and_unload, READY: read_and_place}, rounds)
        times = ratio(seconds, LOAD, READY)
        figures.append(Figure(what=f"times as fast, {model.name}", value=times, unit="x", bar=READY_BAR, at_least=True))
        notes.append(f"{model.name}: {medians(seconds)}.")
    notes.append(
        "Ours reads the manifest, hashes every file, checks each tensor, and writes it into the slots; both read files"
        " that the system has in its memory."
    )
    return Found(figures=tuple(figures), notes=tuple(notes))


def switch(materials: Materials) -> Found:
    """From one adapter in a slot to another one, for a batch that is drawn."""
    figures = []
    notes = []
    rounds = materials.number(25, 2)
    for model in materials.measured:
        folders = materials.adapters(model, 8)
        theirs = Plain(model)
        ours = Bare(model)
        slots = [ours.load(folder) for folder in folders]
        samples = [ours.sample(0, [SlotUse(slot, 1.0)], steps=1000) for slot in slots]

        def load_and_unload(number: int, theirs: Plain = theirs, folders: Sequence = folders) -> None:
            theirs.load(folders[number % 8])
            theirs.unload()

        def route(number: int, ours: Bare = ours, samples: Sequence = samples) -> None:
            ours.engine._route([samples[number % 8]])  # noqa: SLF001 - what a step does first

        def step_after(number: int, ours: Bare = ours, samples: Sequence = samples) -> None:
            ours.engine.step([samples[number % 8]])

        def step_again(number: int, ours: Bare = ours, samples: Sequence = samples) -> None:
            ours.engine.step([samples[number % 8]])

        variants = {LOAD: load_and_unload, "ours": route, "first step": step_after, "later step": step_again}
        seconds = in_turns(variants, rounds)
        times = ratio(seconds, LOAD, "ours")
        more = median(seconds["first step"]) - median(seconds["later step"])
        figures.append(
            Figure(what=f"times as fast, {model.name}", value=times, unit="x", bar=SWITCH_BAR, at_least=True)
        )
        gathering = median(seconds[LOAD]) / max(more, 1e-9)
        figures.append(Figure(what=f"with gathering the weights, {model.name}", value=gathering, unit="x"))
        notes.append(f"{model.name}: {medians(seconds)}.")
    notes.append(
        "A switch names the slots of the next batch. The first step after it gathers their weights, which later steps"
        " find gathered; that is in the second figure, and part of every call that is measured below."
    )
    return Found(figures=tuple(figures), notes=tuple(notes))


def registered(materials: Materials) -> Found:
    """A call with many adapters registered, read and in turn resident, against one."""
    figures = []
    notes = []
    count = materials.number(REGISTERED, 12)
    for model in materials.measured:
        folders = materials.adapters(model, count)
        seconds = calls(model, {f"{count} registered": folders, "1 registered": folders[:1]}, materials.number(15, 2))
        times = ratio(seconds, f"{count} registered", "1 registered")
        figures.append(Figure(what=f"time of a call, {model.name}", value=times, unit="x", bar=REGISTERED_BAR))
        notes.append(f"{model.name}: {medians(seconds)}.")
    notes.append(
        "Each server has drawn with all that it knows, as many as fit lie in its slots, and the call is by the first"
        " of them."
    )
    return Found(figures=tuple(figures), notes=tuple(notes))


def calls(model: Model, libraries: dict[str, list], rounds: int) -> dict:
    """Return the seconds of a call of servers that know different adapters."""
    servers = {}
    for name, folders in libraries.items():
        ours = Ours(model).__enter__()
        for number in ours.register(folders):
            ours.draw([Request(0, number)], steps=1)
        ours.draw([Request(0, "0")])
        servers[name] = ours
    variants = {}
    for name, ours in servers.items():
        variants[name] = lambda number, ours=ours: ours.draw([Request(number, "0")])
    try:
        return dict(in_turns(variants, rounds))
    finally:
        for ours in servers.values():
            ours.__exit__()
