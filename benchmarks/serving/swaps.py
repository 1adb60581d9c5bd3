"""What it costs to bring an adapter in, and to switch to one that is in."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.serving.materials import Materials, Model
from benchmarks.serving.ours import Ours, Request, weights_of
from benchmarks.serving.pictures import Bare
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.theirs import Plain
from benchmarks.serving.turns import Seconds, in_turns, medians, ratio
from entrypoints.serving.slots import SlotUse

LOAD, OURS = "load_lora_weights and unload_lora_weights", "ours"
FIRST_STEP, LATER_STEP = "the first step after it", "a later step"
READY_BAR = 15.0
SWITCH_BAR = 1000.0
REGISTERED = 500
REGISTERED_BAR = 1.1
RESIDENTS = 8
LONG = 1000
"""Steps of an image that is not drawn to its end."""


def ready(materials: Materials) -> Found:
    """From an adapter on disk to one that the next step draws with."""
    figures = []
    notes = []
    for model in materials.measured:
        seconds = ready_seconds(materials, model, materials.number(25, 2))
        times = ratio(seconds, LOAD, OURS)
        figures.append(Figure(what=f"times as fast, {model.name}", value=times, unit="x", bar=READY_BAR, at_least=True))
        notes.append(f"{model.name}: {medians(seconds)}.")
    notes.append(
        "Ours reads the manifest, hashes every file, checks each tensor, and writes it into the slots; both read files"
        " that the system has in its memory."
    )
    return Found(figures=tuple(figures), notes=tuple(notes))


def ready_seconds(materials: Materials, model: Model, rounds: int) -> Seconds:
    """Return the seconds that both take for an adapter that was not loaded before."""
    folders = materials.adapters(model, rounds + 1)
    theirs = Plain(model)

    def load_and_unload(number: int) -> None:
        theirs.load(folders[number])
        theirs.unload()

    with Ours(model, slots=4) as ours:
        slots = ours.worker.slots

        def read_and_place(number: int) -> None:
            served = ours.read(folders[number])
            slots.release(slots.hold(served.key, weights_of(served)))

        return in_turns({LOAD: load_and_unload, OURS: read_and_place}, rounds)


def switch(materials: Materials) -> Found:
    """From one adapter in a slot to another one, for a batch that is drawn."""
    figures = []
    notes = []
    for model in materials.measured:
        seconds = switch_seconds(materials, model, materials.number(25, 2))
        times = ratio(seconds, LOAD, OURS)
        figures.append(
            Figure(what=f"times as fast, {model.name}", value=times, unit="x", bar=SWITCH_BAR, at_least=True)
        )
        gathering = median(seconds[FIRST_STEP]) - median(seconds[LATER_STEP])
        if gathering > 0:
            with_it = median(seconds[LOAD]) / (gathering + median(seconds[OURS]))
            figures.append(Figure(what=f"with gathering the weights, {model.name}", value=with_it, unit="x"))
        notes.append(f"{model.name}: {medians(seconds)}.")
    notes.append(
        f"A switch names the slots of the next batch; {RESIDENTS} in a row, divided by as many. The first step after it"
        " gathers their weights, which later steps find gathered; that is in the second figure, and part of every call"
        " that is measured below."
    )
    return Found(figures=tuple(figures), notes=tuple(notes))


def switch_seconds(materials: Materials, model: Model, rounds: int) -> Seconds:
    """Return the seconds of both, and of our steps after a switch."""
    folders = materials.adapters(model, RESIDENTS)
    theirs = Plain(model)
    ours = Bare(model)
    samples = [ours.sample(0, [SlotUse(ours.load(folder), 1.0)], steps=LONG) for folder in folders]

    def load_and_unload(number: int) -> None:
        theirs.load(folders[number % RESIDENTS])
        theirs.unload()

    def route(_: int) -> None:
        for sample in samples:
            ours.engine._route([sample])  # noqa: SLF001 - what a step does first

    def step(number: int) -> None:
        ours.engine.step([samples[number % RESIDENTS]])

    seconds = in_turns({LOAD: load_and_unload, OURS: route, FIRST_STEP: step, LATER_STEP: step}, rounds)
    return {**seconds, OURS: [one / RESIDENTS for one in seconds[OURS]]}


def registered(materials: Materials) -> Found:
    """A call with many adapters registered, read and in turn resident, against one."""
    figures = []
    notes = []
    count = materials.number(REGISTERED, 12)
    many, one = f"{count} registered", "1 registered"
    for model in materials.measured:
        folders = materials.adapters(model, count)
        seconds = call_seconds(model, {many: folders, one: folders[:1]}, materials.number(15, 2))
        times = ratio(seconds, many, one)
        figures.append(Figure(what=f"time of a call, {model.name}", value=times, unit="x", bar=REGISTERED_BAR))
        notes.append(f"{model.name}: {medians(seconds)}.")
    notes.append(
        "Each server has drawn with all that it knows, as many as fit lie in its slots, and the call is by the first"
        " of them."
    )
    return Found(figures=tuple(figures), notes=tuple(notes))


def call_seconds(model: Model, libraries: Mapping[str, Sequence[Path]], rounds: int) -> Seconds:
    """Return the seconds of a call of servers that know different adapters."""
    with ExitStack() as servers:
        variants = {}
        for name, folders in libraries.items():
            ours = servers.enter_context(Ours(model))
            for number in ours.register(folders):
                ours.draw([Request(0, number)], steps=1)
            ours.draw([Request(0, "0")])
            variants[name] = partial(call, ours)
        return in_turns(variants, rounds)


def call(ours: Ours, number: int) -> None:
    """Draw an image with the first adapter."""
    ours.draw([Request(number, "0")])
