"""A file of requests becomes one file for each image, however often it is interrupted."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.endpoints.batch import INDEX_FILE, draw_lines, read_lines
from orchestrator.endpoints.hosts import Answer
from orchestrator.errors import EndpointError, OrchestratorError


class Endpoint:
    """An endpoint that draws a picture of the seed, and breaks after some images."""

    def __init__(self, adapters: Mapping[str, str], breaks_after: int = 1000) -> None:
        self.adapters = adapters
        self.breaks_after = breaks_after
        self.bodies: list[dict[str, Any]] = []

    def known_adapters(self, _name: str) -> Mapping[str, str]:
        return self.adapters

    def base_model(self, _name: str) -> str:
        return "the hash of its weights"

    def invoke(self, _name: str, body: bytes, _accept: str) -> Answer:
        value = json.loads(body)
        self.bodies.append(value)
        if len(self.bodies) > self.breaks_after:
            raise EndpointError("it is gone")
        file = BytesIO()
        Image.new("L", (8, 8), value["parameters"]["seed"]).save(file, format="PNG")
        return Answer(file.getvalue(), "image/png")


LINES = [{"prompt": "a dog", "adapters": ["dog:0.5"], "seed": seed} for seed in range(20)]


def write(folder: Path, lines: Sequence[object]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def draw(path: Path, endpoint: Any) -> list[Path]:
    return draw_lines(read_lines(path), "mine", endpoint, path.parent / "out", lambda _done, _of: None).files


def test_an_interrupted_batch_goes_on_without_a_hole_and_draws_nothing_twice(tmp_path: Path) -> None:
    path = write(tmp_path, LINES)
    broken = Endpoint({"dog": "1"}, breaks_after=7)
    with pytest.raises(EndpointError):
        draw(path, broken)
    there = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")}
    assert len(there) == 7
    assert not (tmp_path / "out" / INDEX_FILE).exists()
    whole = Endpoint({"dog": "1"})
    files = draw(path, whole)
    assert len(whole.bodies) == 13
    assert [file.stat().st_mtime_ns for file in files if file.name in there] == [
        there[file.name] for file in files if file.name in there
    ]
    for seed, file in enumerate(files):
        with Image.open(file) as image:
            assert image.getpixel((0, 0)) == seed
    index = json.loads((tmp_path / "out" / INDEX_FILE).read_text())
    assert [entry["file"] for entry in index] == [file.name for file in files]


def test_an_adapter_that_was_trained_again_is_drawn_with_again_and_equal_lines_once(tmp_path: Path) -> None:
    path = write(tmp_path, [LINES[0], "", LINES[0], {"prompt": "a dog"}])
    first = draw(path, Endpoint({"dog": "1"}))
    assert first[0] == first[1] != first[2]
    renewed = Endpoint({"dog": "2"})
    second = draw(path, renewed)
    assert len(renewed.bodies) == 1
    assert second[0] != first[0]
    assert second[2] == first[2]


WRONG = {
    "no JSON": ("{", "line 2"),
    "a list": ("[1]", "line 2: the line"),
    "no prompt": ("{}", "line 2: prompt"),
    "an unknown field": ('{"prompt": "x", "promt": "y"}', "promt"),
    "a wrong size": ('{"prompt": "x", "size": 65}', "size"),
    "a wrong weight": ('{"prompt": "x", "adapters": ["dog:99"]}', "adapters"),
    "an adapter that it has not": ('{"prompt": "x", "adapters": ["dgo"]}', "dgo"),
    "a seed of 5000 digits": (f'{{"prompt": "x", "seed": {"9" * 5000}}}', "line 2"),
}


@pytest.mark.parametrize(("line", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_told_with_its_number_before_anything_is_drawn(tmp_path: Path, line: str, said: str) -> None:
    endpoint = Endpoint({"dog": "1"})
    with pytest.raises(OrchestratorError) as raised:
        draw(write(tmp_path, [LINES[0], line]), endpoint)
    assert said in raised.value.render()
    assert endpoint.bodies == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"], ids=["empty", "not UTF-8"])
def test_a_file_that_has_no_lines_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(OrchestratorError):
        read_lines(path)
    with pytest.raises(OrchestratorError):
        read_lines(tmp_path)
