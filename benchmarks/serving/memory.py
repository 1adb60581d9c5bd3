"""Whether a server grows with the adapters that come and go."""

from benchmarks.serving.materials import Materials
from benchmarks.serving.process import body, served
from benchmarks.serving.results import Figure, Found

SLOTS = 4
KEPT = 8
"""Adapters that main memory has room for."""
BAR = 5.0


def growth(materials: Materials) -> Found:
    """Swap an adapter in for each request, and compare the process's memory early and late."""
    model = materials.builtin
    adapters = materials.number(40, 12)
    swaps = materials.number(1000, 24)
    early = materials.number(50, 12)
    folders = materials.adapters(model, adapters)
    size = sum(path.stat().st_size for path in folders[0].iterdir())
    names = {str(number): folder for number, folder in enumerate(folders)}
    marks = {}
    with (
        served(materials, model, names, slots=SLOTS, memory_bytes=KEPT * size) as server,
        server.client() as client,
    ):
        for swap in range(1, swaps + 1):
            asked = body(model, swap, str(swap % adapters), num_inference_steps=1)
            client.post("/invocations", json=asked).raise_for_status()
            if swap in (early, swaps):
                marks[swap] = server.memory
    grown = 100 * (marks[swaps] / marks[early] - 1)
    note = (
        f"{model.name}: {marks[early] / 1e6:.0f} MB resident after {early} swaps, {marks[swaps] / 1e6:.0f} MB after"
        f" {swaps}; {adapters} adapters of {size / 1e6:.1f} MB in turns, {SLOTS} slots, memory for {KEPT}: each request"
        " reads its adapter from disk and puts it into the place of another. The process is the real server's."
    )
    return Found(figures=(Figure(what="more memory", value=grown, unit=" %", bar=BAR),), notes=(note,))
