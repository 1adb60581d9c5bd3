"""A file of prompts becomes one file for each image, however often it is interrupted and whatever fails meanwhile."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from click.testing import CliRunner
from PIL import Image

from orchestrator.cli import cli
from orchestrator.cli import endpoint_batch as commanded
from orchestrator.endpoints.batch import MOST_FAILURES
from orchestrator.endpoints.batch_folder import INDEX_FILE
from orchestrator.endpoints.deployment import Lease
from orchestrator.endpoints.hosts import Answer, Contents, EndpointDescription, EndpointStatus
from orchestrator.endpoints.names import HostName, Mode
from orchestrator.errors import AccessError, EndpointError, OrchestratorError

DESCRIPTION = EndpointDescription(
    name="mine",
    host=HostName.LOCAL,
    mode=Mode.REALTIME,
    status=EndpointStatus.IN_SERVICE,
    base_model="builtin",
    adapters=("dog",),
    created=datetime(2026, 1, 1, tzinfo=UTC),
    lease=Lease(),
)
Refuse = Callable[[dict[str, Any], int], OrchestratorError | None]


class Endpoint:
    """An endpoint that draws a picture of the seed, unless `refuse` says otherwise of a body and its number."""

    def __init__(self, refuse: Refuse = lambda _body, _number: None, dog: str = "1", base: str = "its weights") -> None:
        self.refuse = refuse
        self.told = Contents(base, {"dog": dog})
        self.bodies: list[dict[str, Any]] = []
        self.drawn = 0
        self._lock = threading.Lock()

    def contents(self, _name: str) -> Contents:
        return self.told

    def invoke(self, _name: str, body: bytes, _accept: str) -> Answer:
        value = json.loads(body)
        with self._lock:
            self.bodies.append(value)
            error = self.refuse(value, len(self.bodies))
            if error is not None:
                raise error
            self.drawn += 1
        file = BytesIO()
        Image.new("L", (8, 8), value["parameters"]["seed"]).save(file, format="PNG")
        return Answer(file.getvalue(), "image/png")


LINES = [{"prompt": "a dog", "adapters": ["dog:0.5"], "seed": seed} for seed in range(20)]
Draw = Callable[..., Any]


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draw lines on an endpoint by the command, into a folder "out", and return what it says."""
    monkeypatch.chdir(tmp_path)

    def draw(endpoint: Endpoint, lines: Sequence[Mapping[str, Any]], *words: str) -> Any:
        Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
        monkeypatch.setattr(commanded, "ready_endpoint", lambda _name, _host: (endpoint, DESCRIPTION))
        asked = ["generate", "mine", "--batch", "lines.jsonl", "-o", "out", *words]
        said = CliRunner().invoke(cli, [*asked, "--json"], standalone_mode=False)
        if said.exception is not None:
            raise said.exception
        return said.return_value, json.loads(said.stdout)

    return draw


def files() -> dict[str, int]:
    """Return the images of the folder, with the times at which they were written."""
    return {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}


def index() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path("out", INDEX_FILE).read_text())
    return {entry["file"]: entry for entry in value["images"]}


def busy(seconds: float | None) -> EndpointError:
    error = EndpointError("it has too many images waiting")
    error.retry_after = seconds
    return error


def test_an_interrupted_batch_goes_on_without_a_hole_and_draws_nothing_twice(draw: Draw) -> None:
    def gone(_body: Mapping[str, Any], number: int) -> OrchestratorError | None:
        return EndpointError("it is gone") if number > 7 else None

    code, said = draw(Endpoint(gone), LINES)
    assert code == EndpointError.exit_code
    assert (said["images"], said["new"], len(said["missing"])) == (7, 7, 13)
    there = files()
    assert len(there) == 7
    assert {file for file, entry in index().items() if "missing" not in entry} == set(there)

    whole = Endpoint()
    code, said = draw(whole, LINES)
    assert (code, said["images"], said["new"], said["missing"]) == (0, 20, 13, [])
    assert whole.drawn == 13
    assert files().items() >= there.items()
    for file, entry in index().items():
        assert entry["file"] == f"{entry['seed'] + 1:05}.png"
        with Image.open(Path("out", file)) as image:
            assert image.getpixel((0, 0)) == entry["seed"]
    assert draw(whole, LINES)[1]["new"] == 0
    assert whole.drawn == 13


def test_a_line_that_the_endpoint_refuses_loses_no_other_one(draw: Draw) -> None:
    def refuse(body: Mapping[str, Any], _number: int) -> OrchestratorError | None:
        return EndpointError("two words are alike") if body["parameters"]["seed"] == 3 else None

    code, said = draw(Endpoint(refuse), LINES)
    assert (code, said["images"]) == (EndpointError.exit_code, 19)
    assert said["missing"] == [{"file": "00004.png", "line": 4, "why": "two words are alike"}]
    assert index()["00004.png"]["missing"] == "two words are alike"
    code, said = draw(Endpoint(), LINES)
    assert (code, said["new"], "missing" in index()["00004.png"]) == (0, 1, False)


def test_a_full_endpoint_is_asked_again_and_nothing_is_lost(draw: Draw) -> None:
    def refuse(_body: Mapping[str, Any], number: int) -> OrchestratorError | None:
        return busy(0.001) if number % 2 else None

    endpoint = Endpoint(refuse)
    code, said = draw(endpoint, LINES)
    assert (code, said["images"], endpoint.drawn) == (0, 20, 20)
    assert len(endpoint.bodies) >= 39


@pytest.mark.parametrize("error", [EndpointError("no server"), AccessError("not allowed")], ids=["server", "account"])
def test_an_endpoint_that_fails_is_given_up(draw: Draw, error: OrchestratorError) -> None:
    lines = [{"prompt": "a dog", "seed": seed} for seed in range(200)]
    endpoint = Endpoint(lambda _body, _number: error)
    code, said = draw(endpoint, lines)
    assert (code, said["images"], len(said["missing"])) == (EndpointError.exit_code, 0, 200)
    most = MOST_FAILURES if isinstance(error, EndpointError) else 1
    assert most <= len(endpoint.bodies) < 200
    assert said["missing"][-1]["why"] == "was not tried"


def test_an_image_that_was_cut_off_is_drawn_again(draw: Draw) -> None:
    draw(Endpoint(), LINES)
    path = Path("out", "00002.png")
    path.write_bytes(path.read_bytes()[:30])
    code, failed = draw(Endpoint(lambda _body, _number: EndpointError("it is gone")), LINES)
    assert (code, failed["images"]) == (EndpointError.exit_code, 19)
    assert [image["file"] for image in failed["missing"]] == ["00002.png"]
    assert draw(Endpoint(), LINES)[1]["new"] == 1


@pytest.mark.parametrize("change", ["adapter", "base model", "line", "foreign file"])
def test_images_are_not_replaced_by_others_unless_that_is_asked_for(draw: Draw, change: str) -> None:
    draw(Endpoint(), LINES[:3])
    endpoint = Endpoint(
        dog="2" if change == "adapter" else "1", base="others" if change == "base model" else "its weights"
    )
    lines = LINES[:4]
    others = 3
    if change == "line":
        lines = [{**LINES[0], "prompt": "a cat"}, *LINES[1:4]]
        others = 1
    if change == "foreign file":
        Path("out", "00004.png").write_text("mine")
        others = 1
    before = files()
    with pytest.raises(OrchestratorError, match=r"would be replaced.*Nothing was drawn") as raised:
        draw(endpoint, lines)
    assert "--force" in raised.value.next_step
    assert (files(), endpoint.bodies) == (before, [])
    _, said = draw(endpoint, lines, "--force")
    assert (said["images"], said["missing"]) == (4, [])
    assert said["new"] == (others if change == "foreign file" else others + 1)


def test_a_folder_of_another_batch_is_left_alone(draw: Draw) -> None:
    Path("out").mkdir()
    Path("out", INDEX_FILE).write_text('{"job": "prompts-images", "images": []}')
    with pytest.raises(OrchestratorError, match="not the index of a batch that an endpoint has drawn"):
        draw(Endpoint(), LINES)


def test_lines_say_how_many_images_under_which_names_and_options_what_they_leave_out(draw: Draw) -> None:
    endpoint = Endpoint()
    lines = [
        {"prompt": "a dog", "n": 2, "id": "two"},
        {"prompt": "a cat", "seeds": [7, 3], "adapters": [], "steps": 4, "negative_prompt": "blur"},
        {"prompt": "a house", "embeddings": ["dog"], "adapters": []},
    ]
    words = ("--adapter", "dog:0.5", "--steps", "9", "--seed", "5", "--negative", "red", "--scheduler", "euler")
    draw(endpoint, lines, *words)
    drawn = {(entry["file"], entry["prompt"], entry["seed"], entry["steps"]) for entry in index().values()}
    assert drawn == {
        ("two-1.png", "a dog", 5, 9),
        ("two-2.png", "a dog", 6, 9),
        ("00002-1.png", "a cat", 7, 4),
        ("00002-2.png", "a cat", 3, 4),
        ("00003.png", "a house", 5, 9),
    }
    bodies = {body["inputs"][0]: body for body in endpoint.bodies}
    assert bodies["a dog"]["adapters"] == [{"name": "dog", "weight": 0.5}]
    assert bodies["a dog"]["parameters"]["negative_prompt"] == "red"
    assert bodies["a cat"].get("adapters") is None
    assert bodies["a cat"]["parameters"]["negative_prompt"] == "blur"
    assert bodies["a house"]["adapters"] == [{"name": "dog", "weight": 1.0}]
    assert {body["parameters"]["scheduler"] for body in endpoint.bodies} == {"euler"}


WRONG = {
    "an unknown field": ({"prompt": "x", "promt": "y"}, 'line 2: there is no field "promt"'),
    "a wrong size": ({"prompt": "x", "size": 65}, "line 2, size: "),
    "a wrong weight": ({"prompt": "x", "adapters": ["dog:99"]}, "line 2, adapters: weight"),
    "a weight that is no number": ({"prompt": "x", "adapters": ["dog:a"]}, "line 2, adapters: 'a' is no weight"),
    "an adapter that it has not": ({"prompt": "x", "adapters": ["dgo"]}, 'no adapter "dgo" (did you mean "dog"?)'),
    "the same again": (LINES[0], "line 2: asks for an image of line 1 again"),
    "an id twice": ({"prompt": "x", "id": "00001"}, 'line 2: the id "00001" is that of line 1 too'),
    "too many": ({"prompt": "x", "n": 50_000}, "line 2: more than 50000 images"),
}


@pytest.mark.parametrize(("line", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_told_with_its_number_before_anything_is_drawn(
    draw: Draw, line: Mapping[str, Any], said: str
) -> None:
    endpoint = Endpoint()
    with pytest.raises(OrchestratorError) as raised:
        draw(endpoint, [LINES[0], line])
    assert said in raised.value.render()
    assert endpoint.bodies == []
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--prompt", "a cat"), "--prompt goes with no file"),
        (("--image", "a.png", "--mask", "b.png"), "--image and --mask goes with no file"),
        (("--control", "canny=a.png"), "--control goes with no file"),
        (("--steps", "0"), "--steps: "),
        (("--instances", "0"), "--instances: only for --batch without an endpoint"),
        (("--target", "local", "--spot"), "--target and --spot: only for"),
        (("--grid",), "choose one"),
    ],
)
def test_options_that_a_batch_of_an_endpoint_does_not_take_are_refused(
    draw: Draw, words: Sequence[str], says: str
) -> None:
    endpoint = Endpoint()
    with pytest.raises((OrchestratorError, UsageError)) as raised:
        draw(endpoint, LINES, *words)
    error = raised.value
    said = error.format_message() if isinstance(error, UsageError) else error.render()
    assert says in said
    assert endpoint.bodies == []
