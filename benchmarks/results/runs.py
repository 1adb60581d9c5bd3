"""Run one experiment by the command line, as a person would, and keep what came of it as a JSON file."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.process_tree import Usage, measure
from benchmarks.results.experiments import HELD_OUT, Experiment
from benchmarks.results.held_out import write_held_out
from benchmarks.results.style_scorer import StyleScorer
from orchestrator.contract.adapter import AdapterManifest
from orchestrator.contract.evaluation_result import EvaluationResult, Figure
from orchestrator.contract.model_layout import files_sha256, model_files
from orchestrator.contract.samples import INDEX_FILE, SAMPLES_FOLDER, parse_index
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.storage import folder_of

ROOT = Path(__file__).parents[2]
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
EVALUATION_SEEDS = 4


class Measured(BaseModel):
    """What came of one training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    experiment: str
    """Its name."""
    seed: int
    """Of the training."""
    cpu_seconds: float
    """Of the submit and all it starts, on one thread."""
    wall_seconds: float
    """Of the same."""
    peak_bytes: int
    """Resident memory of the largest process."""
    weights_bytes: int
    """Size of the adapter's weights."""
    evaluations: dict[str, EvaluationResult]
    """What `evaluate` said, by the strength of the adapter."""
    style: dict[str, tuple[float, ...]] = {}
    """Probability that an image is in the sample style, of each image, by the strength; for the style alone."""

    def figure(self, measure_name: str, space: str, weight: float = 1.0) -> Figure | None:
        """Return a figure of an evaluation; None where it was not measured."""
        for figure in self.evaluations[str(weight)].figures:
            if (figure.measure, figure.space) == (measure_name, space):
                return figure
        return None


class Workplace:
    """The folder of the results: a home of the product, and what was measured."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.home = self.root / "home"
        self.base_model = files_sha256(BUILTIN_MODEL, model_files(BUILTIN_MODEL))

    def find(self, experiment: Experiment, seed: int) -> Measured | None:
        """Return what was measured before; None if there is nothing."""
        try:
            return Measured.model_validate_json(self._file(experiment, seed).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def run(self, experiment: Experiment, seed: int) -> Measured:
        """Train and evaluate; raises SystemExit with the product's own message when a command fails."""
        self.home.mkdir(parents=True, exist_ok=True)
        name = experiment.job_name(seed)
        usage, described = self._command([*experiment.words(seed), "--json"])
        folder = folder_of(described["adapter"])
        manifest = AdapterManifest.read(folder)
        evaluations = {}
        style = {}
        for weight in experiment.weights:
            drawn = self._evaluate(experiment, name, weight)
            evaluations[str(weight)] = EvaluationResult.read(drawn)
            if experiment.recipe == "lora":
                style[str(weight)] = StyleScorer.of_drawn_scenes().probabilities(images_after(drawn))
        measured = Measured(
            experiment=experiment.name,
            seed=seed,
            cpu_seconds=usage.cpu_seconds,
            wall_seconds=usage.wall_seconds,
            peak_bytes=usage.peak_bytes,
            weights_bytes=weights_bytes(manifest),
            evaluations=evaluations,
            style=style,
        )
        keep(self._file(experiment, seed), measured)
        return measured

    def _evaluate(self, experiment: Experiment, name: str, weight: float) -> Path:
        """Evaluate an adapter and return the folder of the result."""
        words = ["evaluate", name, "--seeds", str(EVALUATION_SEEDS), "--json"]
        if weight != 1:
            words += ["--weight", str(weight)]
        if experiment.reference == HELD_OUT:
            words += ["--reference", str(write_held_out(self.root / "held-out"))]
        if experiment.prompts:
            prompts = self.root / f"prompts-{name}.txt"
            prompts.write_text("\n".join(experiment.prompts) + "\n", encoding="utf-8")
            words += ["--prompts", str(prompts)]
        _, described = self._command(words)
        return folder_of(described["output"])

    def _command(self, words: Sequence[str]) -> tuple[Usage, dict[str, str]]:
        return run_command(words, self.home, self.root)

    def _file(self, experiment: Experiment, seed: int) -> Path:
        return self.root / "measured" / f"{experiment.key(seed, self.base_model)}.json"


def run_command(words: Sequence[str], home: Path, folder: Path) -> tuple[Usage, dict[str, str]]:
    """Run one command of the product on one thread, and return what it took and the JSON that it printed last.

    Raises SystemExit with the product's own message when it fails.
    """
    variables = {**THREADS, "ORCHESTRATOR_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestrator", *words]
    usage = measure(command, variables, folder)
    output = usage.output.decode(errors="replace")
    if usage.exit_code != 0:
        raise SystemExit(f"{' '.join(words)}\n{output}")
    start = 0 if output.startswith("{") else output.index("\n{") + 1
    described, _ = json.JSONDecoder().raw_decode(output, start)
    return usage, described


def keep(path: Path, value: BaseModel) -> None:
    """Write what was measured whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(value.model_dump_json(indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def weights_bytes(manifest: AdapterManifest) -> int:
    """Return the bytes of an adapter's weights: its safetensors files."""
    return sum(digest.size for name, digest in manifest.files.items() if name.endswith(".safetensors"))


def images_after(folder: Path) -> list[Path]:
    """Return the images of an evaluation that were drawn with the adapter, of prompts that ask for what it learned."""
    result = EvaluationResult.read(folder)
    asked = {prompt.adapter for prompt in result.prompts}
    samples = folder / SAMPLES_FOLDER
    index = parse_index((samples / INDEX_FILE).read_bytes())
    return [samples / one.file for one in index.images if one.source == "after" and one.prompt in asked]
