"""What HTTP, JSON, the queue and the encoding of the picture add to a request."""

from statistics import median

import httpx

from benchmarks.serving.materials import Materials
from benchmarks.serving.pictures import Bare
from benchmarks.serving.process import body, served
from benchmarks.serving.results import Figure, Found
from benchmarks.serving.turns import in_turns, medians
from entrypoints.serving.slots import SlotUse

BAR = 5.0
STEPS = 2
OVER_HTTP, ENGINE, PING = "over HTTP", "the engine alone", "a ping"


def overhead(materials: Materials) -> Found:
    """A request to the server's process, against the same picture by the engine in this one."""
    model = materials.smallest
    (folder,) = materials.adapters(model, 1)
    engine = Bare(model)
    use = SlotUse(engine.load(folder), 1.0)
    with served(materials, model, {"one": folder}) as server, server.client() as client:

        def post(number: int) -> None:
            answer = client.post("/invocations", json=body(model, number, "one", num_inference_steps=STEPS))
            if answer.status_code != httpx.codes.OK:
                raise RuntimeError(answer.text)

        def draw(number: int) -> None:
            sample = engine.sample(number, [use], steps=STEPS)
            while not sample.is_done:
                engine.engine.step([sample])
            engine.engine.decode(sample)

        variants = {OVER_HTTP: post, ENGINE: draw, PING: lambda _: client.get("/ping")}
        seconds = in_turns(variants, materials.number(200, 10), warm_up=5)
    more = 1000 * (median(seconds[OVER_HTTP]) - median(seconds[ENGINE]))
    return Found(
        figures=(Figure(what="more than the engine alone", value=more, unit=" ms", bar=BAR),),
        notes=(
            f"{model.name}, {STEPS} steps: {medians(seconds)}.",
            "One client, one connection; the answer is JSON with a PNG. Two processes on two cores.",
        ),
    )
