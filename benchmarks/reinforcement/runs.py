"""Run one experiment by the command line, as a person would, and keep what came of it as a JSON file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.process_tree import Usage
from benchmarks.reinforcement.experiments import Experiment
from benchmarks.reinforcement.hidden import labelling
from benchmarks.reinforcement.judging import GUIDANCE, Judged, judge, judge_true_pictures
from benchmarks.results.runs import keep, run_command
from orchestrator.contract.events import Step, Warned
from orchestrator.contract.labels import EXCHANGE_FOLDER
from orchestrator.contract.model_layout import files_sha256, model_files
from orchestrator.jobs.job import find
from orchestrator.labels.exchange import Exchange
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import Settings
from orchestrator.storage import FolderStore, folder_of
from orchestrator.targets.local.process import ProcessTarget


class Raised(BaseModel):
    """What came of one training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    experiment: str
    """Its name."""
    seed: int
    """Of the training."""
    cpu_seconds: float
    """Of the submit and all it starts, on one thread."""
    peak_bytes: int
    """Resident memory of the largest process."""
    queries: int
    """Images that were scored, or pairs that were learned from."""
    rewards: tuple[float, ...]
    """Mean reward of the images of each round."""
    alarms: tuple[str, ...]
    """What the job warned of."""
    judged: Judged
    """Scores of the held-out prompts with the adapter."""


class Workplace:
    """The folder of the results: a home of the product, and what was measured."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.home = self.root / "home"
        self.base_model = files_sha256(BUILTIN_MODEL, model_files(BUILTIN_MODEL))

    def base(self, guidance: float = GUIDANCE) -> Judged:
        """Return the scores of the held-out prompts without an adapter."""
        return self._kept(f"base-{guidance:g}", partial(judge, None, guidance))

    def true(self) -> Judged:
        """Return the scores of true pictures of the held-out prompts."""
        return self._kept("true", judge_true_pictures)

    def _kept(self, name: str, judging: Callable[[], Judged]) -> Judged:
        path = self.root / "judged" / f"{name}-{self.base_model[:24]}.json"
        if not path.is_file():
            keep(path, judging())
        return Judged.model_validate_json(path.read_bytes())

    def find(self, experiment: Experiment, seed: int) -> Raised | None:
        """Return what was measured before; None if there is nothing."""
        try:
            return Raised.model_validate_json(self._file(experiment, seed).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def run(self, experiment: Experiment, seed: int, pairs_of: str | None) -> Raised:
        """Train and judge; raises SystemExit with the product's own message when a command fails.

        `pairs_of` is the job whose labels the pairs are taken from.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        words = experiment.words(seed)
        if pairs_of is not None:
            words += ["--images", str(self._pairs(pairs_of))]
        with self._people(words, seed) if experiment.labelled else nullcontext():
            usage, _ = self._command([*words, "--together", "--json"])
        job = find(experiment.job_name(seed), [ProcessTarget(self.settings)])
        described = job.describe()
        steps = [event for event in job.events() if isinstance(event, Step)]
        recipe = experiment.recipe(seed)
        queries = 2 * recipe.steps * recipe.batch_size
        if pairs_of is None:
            queries = recipe.rounds * recipe.prompts_per_round * recipe.group_size
        raised = Raised(
            experiment=experiment.name,
            seed=seed,
            cpu_seconds=usage.cpu_seconds,
            peak_bytes=usage.peak_bytes,
            queries=queries,
            rewards=rewards_of(steps, recipe.steps_per_round if pairs_of is None else len(steps)),
            alarms=tuple(event.message for event in job.events() if isinstance(event, Warned)),
            judged=judge(folder_of(described.output), experiment.guidance),
        )
        keep(self._file(experiment, seed), raised)
        return raised

    @contextmanager
    def _people(self, words: Sequence[str], seed: int) -> Iterator[None]:
        """Have simulated people label the rounds of a job that is about to be submitted."""
        _, request = self._command([*words, "--dry-run", "--json"])
        checkpoints = self.settings.jobs / request["TrainingJobName"] / "ml" / "checkpoints"
        exchange = Exchange(FolderStore(checkpoints / EXCHANGE_FOLDER))
        with labelling(exchange, seed):
            yield

    def _pairs(self, job: str) -> Path:
        """Write the pairs that the labels of a job make, and return their folder."""
        folder = self.root / "pairs" / job
        if not folder.is_dir():
            self._command(["label", job, "--export", str(folder), "--json"])
        return folder

    @property
    def settings(self) -> Settings:
        """Of the home in which jobs run."""
        return Settings(home=self.home)

    def _command(self, words: Sequence[str]) -> tuple[Usage, dict[str, str]]:
        return run_command(words, self.home, self.root)

    def _file(self, experiment: Experiment, seed: int) -> Path:
        return self.root / "measured" / f"{experiment.key(seed, self.base_model)}.json"


def rewards_of(steps: Sequence[Step], steps_per_round: int) -> tuple[float, ...]:
    """Return the mean reward of each round, as its first step tells it; none for a job without rewards."""
    rewards = []
    for step in steps:
        opens_round = (step.step - 1) % steps_per_round == 0
        if opens_round and "reward" in step.measures:
            rewards.append(step.measures["reward"])
    return tuple(rewards)
