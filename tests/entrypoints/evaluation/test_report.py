"""The report of a run: one page that holds all it shows, asks for nothing, and believes nothing."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

from entrypoints.evaluation import report, report_images
from entrypoints.evaluation.curve import draw_curve
from entrypoints.evaluation.report_images import spread
from entrypoints.evaluation.report_words import COMPLETED, FAILED, Ending, duration
from entrypoints.evaluation.samples import IndexedImage, write_samples
from entrypoints.runtime.history import History
from entrypoints.runtime.machine import Machine
from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.train import run_recipe
from orchestrator.contract.adapter import AdapterManifest, BaseModelReference
from orchestrator.contract.environment import PRICE_VARIABLE, Environment
from orchestrator.contract.events import Step, Warned, emit, forget_warnings
from orchestrator.contract.findings import FINDINGS_FILE, Findings
from orchestrator.contract.problem import Problem
from orchestrator.contract.samples import SampleImage, Source

HOSTILE = "</script><script>alert(1)</script><img src=https://example.org/x onerror=alert(2)>\"'{{ 7*7 }}\ud800"
MACHINE = Machine(device="cpu (AVX2)", threads=2, libraries={"torch": "2.10"})
METRICS = {"subject_fidelity_before": 0.6, "subject_fidelity_after": 0.84, "subject_fidelity_ceiling": 0.9}
VOID = {"meta", "img", "input", "br", "line", "polyline"}


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self.source = environment.report.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inner = self.open[-1] if self.open else ""
        self.texts[inner] = self.texts.get(inner, "") + data

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts.items() if tag not in ("script", "style"))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def sample(file: str, source: Source, colour: str = "red", **about: Any) -> IndexedImage:
    return IndexedImage(Image.new("RGB", (32, 32), colour), SampleImage(file=file, source=source, **about))


def leave(root: Path, words: str = "on red") -> Environment:
    """Lay out what a run leaves: pictures and what was found of them, samples, a history, an adapter."""
    environment = Environment(root=root)
    pictures = tiny.write_pictures(root / "input" / "data" / "training")
    row = {"file_name": "0.png", "text": f"a dog {words}", "repeats": 3}
    (pictures / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    found = [Problem(where="1.png", what="is black all over", fix="remove it"), Problem(where="images/", what="few")]
    Findings(problems=tuple(found)).write(root / "input" / "data" / "findings")
    asked = {"prompt": f"a sks dog {words}".encode(errors="replace").decode(), "text": "a dog"}
    finished = [sample("real-00.png", "real")]
    finished += [sample(f"before-00-{seed:02}.png", "before", "blue", seed=seed, **asked) for seed in range(6)]
    finished += [sample(f"after-00-{seed:02}.png", "after", "green", seed=seed, **asked) for seed in range(6)]
    write_samples(environment.model / "samples", finished)
    drawn = [sample(f"step-{step:06}-0.png", "after", "red", step=step, **asked) for step in (2, 4, 6)]
    drawn.append(sample("step-000004-1.png", "after", "blue", step=4, prompt="another"))
    write_samples(environment.samples, drawn)
    history = History(environment.checkpoints, 40)
    for step in range(1, 41):
        loss = 9.0 if step == 17 else 1 / step
        history.add(Step(step=step, of=40, loss=loss, learning_rate=1e-4, seconds_per_step=1), 3 * step)
    history.save()
    base = BaseModelReference(id="builtin", fingerprint="f", family="sd")
    manifest = {"dataset_sha256": "d", "bundle_sha256": "b", "libraries": {}, "metrics": METRICS}
    AdapterManifest(kind="lora", recipe="dreambooth", config={}, base_model=base, **manifest).write(environment.model)
    return environment


def write(environment: Environment, ending: Ending | None = None, **fields: Any) -> Page:
    report.write_report(environment, tiny.dreambooth(steps=40, **fields), MACHINE, ending or Ending(COMPLETED, 450))
    return Page(environment)


@pytest.mark.parametrize("words", ["on red", HOSTILE])
def test_a_page_asks_for_nothing_and_runs_no_script_but_its_own(tmp_path: Path, words: str) -> None:
    page = write(leave(tmp_path, words), Ending(COMPLETED, 1, words, words))
    assert len(page.source) < report.MOST_BYTES
    (policy,) = [str(tag["content"]) for tag in page.of("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    hashed = base64.b64encode(hashlib.sha256(page.texts["script"].encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    assert len(page.of("script")) == 1
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in page.of("img"))
    sources = [attributes for tag, attributes in page.tags if tag != "img" and {"src", "href"} & attributes.keys()]
    assert sources == []
    assert not re.search(r"url\(|@import", page.texts["style"])
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert words.replace("\ud800", "?") in page.text


def test_everything_on_a_page_can_be_read_aloud(tmp_path: Path) -> None:
    page = write(leave(tmp_path))
    assert page.of("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.of("img"))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.of("svg"))
    labelled = {label["for"] for label in page.of("label")}
    assert {one["id"] for one in page.of("input")} == labelled
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {section["aria-labelledby"] for section in page.of("section")} <= set(identifiers)


def test_a_page_shows_what_the_run_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRICE_VARIABLE, "1.41")
    page = write(leave(tmp_path))
    alts = [str(image["alt"]) for image in page.of("img")]
    assert [alt for alt in alts if "before training" in alt] == [
        f"a sks dog on red, before training, seed {seed}" for seed in range(report_images.MOST_SEEDS)
    ]
    assert [alt for alt in alts if "after step" in alt] == [
        *[f"a sks dog on red, after step {step}" for step in (2, 4, 6)],
        "another, after step 4",
    ]
    assert [alt for alt in alts if "training image" in alt or alt == "a dog on red"] == [
        "a dog on red",
        "training image 2",
        "training image 3",
    ]
    for words in (
        *("40 of 40", "2 min 00 s, 3 s a step", "7 min 30 s", "about $0.18, at a list price of $1.41 an hour"),
        *("is black all over (remove it)", "images/: few", "3 of 3 images", "0.840", "subject fidelity (CLIP-I)"),
        *("mean cosine between CLIP embeddings of generated images and training pictures", "no caption", "counts as 3"),
        *(
            "instance_prompt",
            "a photo of sks dog",
            "Optimizer steps of the whole run.",
            "torch",
            "2 more beside the adapter",
        ),
    ):
        assert words in page.text, words


def test_a_run_that_failed_before_its_first_step_leaves_a_page(tmp_path: Path) -> None:
    page = write(Environment(root=tmp_path), Ending(FAILED, 3, "The scorer is damaged.", "Name another."))
    assert "The scorer is damaged." in page.text
    assert "Name another." in page.text
    assert "0 of 40" in page.text
    assert page.of("img") == page.of("svg") == []


def test_a_run_that_failed_shows_no_adapter_of_another(tmp_path: Path) -> None:
    page = write(leave(tmp_path), Ending(FAILED, 3, "No space is left."))
    assert "before training, seed" not in page.source
    assert "0.840" not in page.text
    assert page.of("svg")


@pytest.mark.parametrize("damage", ["{", "[]", '{"problems": [{"where": "1.png"}]}', '{"problems": "x"}'])
def test_damaged_findings_prevent_no_page(tmp_path: Path, damage: str) -> None:
    environment = leave(tmp_path)
    (tmp_path / "input" / "data" / "findings" / FINDINGS_FILE).write_text(damage)
    assert "is black all over" not in write(environment).text


def test_many_large_images_are_shrunk_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = leave(tmp_path)
    noise = Image.effect_noise((300, 300), 90).convert("RGB")
    for number in range(12):
        noise.rotate(number).save(tmp_path / "input" / "data" / "training" / f"{number}.png")
    sizes = []
    for most in (report.MOST_IMAGE_BYTES, 200_000, 40_000):
        monkeypatch.setattr(report, "MOST_IMAGE_BYTES", most)
        images = write(environment).of("img")
        sizes.append(sum(len(str(image["src"])) for image in images))
        assert sizes[-1] <= most
        assert len(images) == 1 + 2 * report_images.MOST_SEEDS + 4 + 12
    assert sizes == sorted(sizes, reverse=True)


def test_of_many_images_some_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_images, "MOST_TRAINING", 2)
    monkeypatch.setattr(report_images, "MOST_TIMELINE", 4)
    page = write(leave(tmp_path))
    assert "2 of 3 images" in page.text
    assert "1 step between these not shown" in page.text
    assert [image["alt"] for image in page.of("img") if "after step" in str(image["alt"])] == [
        "a sks dog on red, after step 2",
        "a sks dog on red, after step 6",
    ]


def test_steps_are_spread_evenly_with_the_last() -> None:
    assert spread(range(10, 1010, 10), 5) == [10, 260, 510, 750, 1000]
    assert spread([1, 2], 5) == [1, 2]
    assert spread([], 5) == []


def test_a_curve_keeps_every_peak_and_its_labels_are_round() -> None:
    losses = [9.0 if step == 1717 else 0.1 for step in range(1, 20_001)]
    curve = draw_curve("Loss", range(1, 20_001), losses, 20_000, smooth=True)
    points = [tuple(map(float, point.split(","))) for point in curve.raw.split()]
    assert len(points) < 2000
    assert [x for x, y in points if y < 0] == [pytest.approx(1717 / 20, abs=0.1)]  # above the square
    assert [label.text for label in curve.across] == ["0", "5000", "10000", "15000", "20000"]
    assert [label.percent for label in curve.across] == [0, 25, 50, 75, 100]


@pytest.mark.parametrize("values", [[0.0], [3.5] * 20, [-1.0, -2.0], [1e-9, 2e-9], [1e30, 1.0]])
def test_any_values_make_a_curve(values: list[float]) -> None:
    curve = draw_curve("Loss", range(1, len(values) + 1), values, len(values), smooth=True)
    assert all(-1 <= label.percent <= 101 for label in curve.up)
    assert 2 <= len(curve.up) <= 12
    assert "nan" not in curve.raw + curve.smooth


def test_times_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 59.6, 450, 3599.9, 11_100)] == [
        *("0 s", "59 s", "1 min 00 s", "7 min 30 s"),
        *("1 h 00 min", "3 h 05 min"),
    ]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def chromium(page: Path, *options: str) -> str:
    """Have a browser without a window open a page, and return what it prints."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    command += ["--virtual-time-budget=1000", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_the_page_on_a_phone_and_in_the_dark(tmp_path: Path) -> None:
    words = "with a word of " + 90 * "x"
    page = leave(tmp_path, words)
    write(page)
    for scheme, paper in ((1, (255, 255, 255)), (0, (20, 22, 26))):
        shot = tmp_path / f"{scheme}.png"
        options = [f"--blink-settings=preferredColorScheme={scheme}", "--window-size=400,6000", f"--screenshot={shot}"]
        chromium(page.report, *options)
        image = Image.open(shot).convert("RGB")
        right_margin = image.crop((390, 0, 400, image.height))
        assert right_margin.getcolors() == [(10 * image.height, paper)], "something is wider than the page"
        assert len(image.getcolors(maxcolors=2**20)) > 50


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_one_step_of_the_timeline_at_a_time(tmp_path: Path) -> None:
    page = leave(tmp_path)
    write(page)
    shown = chromium(page.report, "--dump-dom")
    assert 'class="sliding"' in shown
    assert len(re.findall(r'<figure hidden="">', shown)) == 4  # all but the last of three, of two prompts
    assert ">step 6</output>" in shown


def test_what_a_run_warned_of_and_what_was_found_of_its_data_stand_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = leave(tmp_path)
    history = History(environment.checkpoints, 40, done=40)
    history.save(["The loss has not fallen. Raise the rate.", HOSTILE.encode(errors="replace").decode()])
    forget_warnings()
    for message in ("The loss has not fallen. Raise the rate.", "Nothing was measured."):
        emit(Warned(message=message))
    assert len(capsys.readouterr().out.splitlines()) == 2
    page = write(environment)
    top, _, rest = page.source.partition('<h2 id="run">')
    assert top.count("The loss has not fallen. Raise the rate.") == 1  # told again after a resume
    assert top.index("The loss has not fallen") < top.index("Nothing was measured.") < top.index("1.png: is black all")
    assert "images/: few" in top
    assert "is black all over" in rest  # beside the image too
    forget_warnings()


def test_a_run_without_remarks_has_no_place_for_them(tmp_path: Path) -> None:
    forget_warnings()
    environment = leave(tmp_path)
    Findings().write(tmp_path / "others")
    (tmp_path / "others" / FINDINGS_FILE).replace(tmp_path / "input" / "data" / "findings" / FINDINGS_FILE)
    assert "Worth a look" not in write(environment).text


def test_of_many_findings_the_first_stand_on_top(tmp_path: Path) -> None:
    forget_warnings()
    environment = leave(tmp_path)
    many = Findings(problems=tuple(Problem(where=f"{number:05}.png", what="is blurred") for number in range(30)))
    (tmp_path / "input" / "data" / "findings" / FINDINGS_FILE).write_text(many.model_dump_json())
    top, _, rest = write(environment).source.partition('<h2 id="run">')
    assert top.count("is blurred") == 8
    assert "22 more beside the images below" in top
    assert rest.count("is blurred") == 30


def test_the_warnings_of_a_run_that_was_resumed_are_all_in_its_report(job: Any, run: Any) -> None:
    environment = job(tiny.textual_inversion(evaluation_prompts=0, mixed_precision="bf16", checkpoint_steps=2))
    stop = StopFlag()
    with pytest.raises(Stopped), redirect_stdout(tiny.StopAfter(2, stop)):
        run_recipe(environment, stop)
    with (environment.checkpoints / "history.jsonl").open("a") as history:
        history.write('{"warning": "Only the first attempt said so."}\n')
    run(environment)
    top, _, _ = environment.report.read_text().partition('<h2 id="run">')
    assert top.count("mixed_precision=bf16 is for GPUs") == 1
    assert top.count("Only the first attempt said so.") == 1
