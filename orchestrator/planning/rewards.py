"""The rewards of a job: what computes each of them and where, which weights it needs, and whether these are there.

Makes no call: a server that judges is not asked before the job runs.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.digest import FileDigest, hash_file
from orchestrator.contract.environment import Wait
from orchestrator.contract.linear_head import HEAD_FILE, require_head
from orchestrator.contract.mixins import Rewarded
from orchestrator.contract.model_configs import ClipConfig
from orchestrator.contract.model_file import read_object
from orchestrator.contract.model_layout import CLIP_FOLDER
from orchestrator.contract.problem import Problem, did_you_mean
from orchestrator.contract.rewards import AESTHETIC, BUILT_IN, ENTRY_POINTS, LOOPBACK, RewardUse
from orchestrator.contract.text_model import require_text_model, text_model_files
from orchestrator.errors import SpecError
from orchestrator.resources import AESTHETIC_HEAD
from orchestrator.settings import expanded
from orchestrator.specs.base_model import Builtin, Hub
from orchestrator.specs.job import JobSpec
from orchestrator.storage.tree import Tree, tree_of_files

_GUIDE = "docs/rewards.md"


class PlannedReward(BaseModel):
    """One reward of a planned job."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What people call it."""
    weight: float | None
    """Its weight in the sum; None for one that only evaluates."""
    where: str
    """What computes it, and where."""
    weights: str | None = None
    """The file or folder with its weights; None for one that needs none of its own."""
    required: bool = True
    """Whether the job ends when it fails."""

    def describe(self) -> str:
        """Return it as a line of a plan."""
        role = "evaluates only"
        if self.weight is not None:
            role = f"weight {self.weight:g}"
        text = f"{self.name} ({role}): {self.where}"
        if self.weights is not None:
            text = f"{text}, with the weights in {self.weights}"
        if not self.required:
            text = f"{text}; counts as 0 where it fails"
        return text


def planned_rewards(spec: JobSpec) -> tuple[PlannedReward, ...]:
    """Return the rewards of a checked job; none for a recipe without rewards.

    They are what a person looks at before a job is paid for: who judges, by which weights, and what leaves the job. An
    image that is judged by a server goes to that server.
    """
    recipe = spec.recipe
    if not isinstance(recipe, Rewarded):
        return ()
    found = []
    for use in recipe.all_rewards:
        is_trained = use in recipe.rewards
        weights = _weights(spec, use)
        reward = PlannedReward(
            name=use.name,
            weight=use.weight if is_trained else None,
            where=_where(spec, use),
            weights=None if weights is None else str(weights),
            required=use.required,
        )
        found.append(reward)
    return tuple(found)


def reward_tree(spec: JobSpec, hash_of: Callable[[Path], FileDigest] = hash_file) -> Tree | None:
    """Return the weights of a job's rewards, in a folder for each; None where there are none.

    The folder has the reward's name, which is unique in a job. Of a text model only the files that are read go along:
    no pickles, no notes.
    """
    recipe = spec.recipe
    if not isinstance(recipe, Rewarded):
        return None
    sources = {}
    for use in recipe.all_rewards:
        path = _weights(spec, use)
        if path is None:
            continue
        if use.name == AESTHETIC.name:
            sources[f"{use.name}/{HEAD_FILE}"] = path
            continue
        for file in text_model_files(path):
            sources[f"{use.name}/{file.name}"] = file
    if not sources:
        return None
    return tree_of_files("models", sources, hash_of)


def check_rewards(spec: JobSpec, *, on_sagemaker: bool) -> list[Problem]:
    """Return warnings; raises SpecError with all problems of a job's rewards when one of them cannot be computed.

    A reward that is not required is checked too: what is wrong before the job starts would be wrong in every round.
    Code of packages is looked for and not run.
    """
    recipe = spec.recipe
    if not isinstance(recipe, Rewarded):
        return []
    problems = []
    warnings = []
    lists = (
        ("rewards", recipe.rewards),
        ("evaluation_rewards", recipe.evaluation_rewards),
    )
    for field, uses in lists:
        for number, use in enumerate(uses):
            where = f"{field}[{number}]"
            problems += _problems(spec, use, where)
            if on_sagemaker:
                problems += _network_problems(spec, use, where)
                problems += _waiting_problems(spec, use)
                warnings += _image_warnings(use, where)
    if problems:
        raise SpecError(
            "The rewards cannot be computed; nothing was started.",
            problems=problems,
            next_step=f"change what is named above, then submit again; {_GUIDE} has every reward",
        )
    return warnings


def _weights(spec: JobSpec, use: RewardUse) -> Path | None:
    """Return the file or folder with the weights of a reward: the one that was named, or that of this package.

    None for a reward that reads no weights, and for one whose weights nobody has named.
    """
    if use.path is not None:
        return expanded(Path(use.path))
    has_own_head = isinstance(spec.base_model, Builtin) and spec.scorer is None
    if use.name == AESTHETIC.name and has_own_head:
        return AESTHETIC_HEAD
    return None


def _where(spec: JobSpec, use: RewardUse) -> str:
    """Return what computes a reward, and where."""
    if use.needs_people:
        return "people, for whose labels the job waits"
    if use.url is not None:
        host = urlsplit(use.url).netloc
        return f"asked of the server {host}"
    if use.reads_clip:
        clip = "the base model's own CLIP"
        if spec.scorer is not None:
            clip = f"the CLIP in {spec.scorer}"
        return f"in the job, by {clip}"
    if use.kind is not None:
        return "in the job"
    offered = _offered(use.name)
    package = offered[0].dist if offered else None
    if package is None:
        return "in the job, by an installed package"
    return f"in the job, by the package {package.name} {package.version}"


def _offered(name: str) -> Sequence[EntryPoint]:
    """Return the installed rewards of a name."""
    offered = entry_points(group=ENTRY_POINTS)
    return [entry for entry in offered if entry.name == name]


def _problems(spec: JobSpec, use: RewardUse, where: str) -> list[Problem]:
    """Return why a reward cannot be computed anywhere."""
    if use.kind is None:
        return _package_problems(use, where)
    if use.reads_clip and not _has_clip(spec):
        what = f'"{use.name}" needs a CLIP, and the base model brings none'
        return [Problem(where=where, what=what, fix="name the folder of one: --scorer FOLDER")]
    path = _weights(spec, use)
    if path is None:
        if use.name != AESTHETIC.name:
            return []
        fix = f'write {{"name": "{use.name}", "path": "head.safetensors"}}; {_GUIDE} says how to get one'
        return [Problem(where=where, what=f'"{use.name}" needs {AESTHETIC.weights}', fix=fix)]
    try:
        if use.name == AESTHETIC.name:
            require_head(path, _clip_width(spec))
        else:
            require_text_model(path)
    except (OSError, ValueError) as error:
        return [Problem(where=f"{where}.path", what=str(error), fix=f"{_GUIDE} says which weights it takes")]
    return []


def _package_problems(use: RewardUse, where: str) -> list[Problem]:
    """Return why a reward that is not built in is not there."""
    found = len(_offered(use.name))
    if found == 1:
        return []
    if found > 1:
        return [Problem(where=where, what=f'{found} packages offer "{use.name}"', fix="uninstall the others")]
    known = [*BUILT_IN, *entry_points(group=ENTRY_POINTS).names]
    what = f'there is no reward "{use.name}", and no installed package offers it'
    fix = did_you_mean(use.name, known) or "install its package"
    return [Problem(where=where, what=what, fix=fix)]


def _has_clip(spec: JobSpec) -> bool:
    """Whether the job has a CLIP, as far as that is known before it runs."""
    if spec.scorer is not None:
        return True
    source = spec.base_model
    if isinstance(source, Hub):  # the usual models of the Hub bring none
        return False
    path = source.folder / CLIP_FOLDER / "config.json"
    return path.is_file()


def _clip_width(spec: JobSpec) -> int | None:
    """Return the width of the embeddings of the job's CLIP; None where its configuration tells none."""
    folder = spec.scorer
    if folder is None and not isinstance(spec.base_model, Hub):
        folder = spec.base_model.folder / CLIP_FOLDER
    if folder is None:
        return None
    config = ClipConfig.model_validate(read_object(folder / "config.json"))
    return config.projection_dim


def _network_problems(spec: JobSpec, use: RewardUse, where: str) -> list[Problem]:
    """Return why a server that judges cannot be reached from SageMaker.

    Whether it answers at all is not known before the job runs: planning makes no call.
    """
    if use.url is None:
        return []
    problems = []
    if urlsplit(use.url).hostname in LOOPBACK:
        what = f"{use.url} is on this machine, which a job on SageMaker does not reach"
        problems.append(Problem(where=f"{where}.url", what=what, fix="name a server that the job's network reaches"))
    if spec.compute.network_isolation:
        what = f'"{use.name}" asks a server, which an isolated container cannot'
        problems.append(Problem(where=where, what=what, fix="write -s compute.network_isolation=false"))
    return problems


def _waiting_problems(spec: JobSpec, use: RewardUse) -> list[Problem]:
    """Return why a job on SageMaker cannot keep running while people label."""
    if not use.needs_people or spec.wait is not Wait.HOLD:
        return []
    what = "is hold, and labels reach a job on SageMaker only when it starts; its GPU would be billed meanwhile"
    return [Problem(where="wait", what=what, fix="write --wait release, or leave it out")]


def _image_warnings(use: RewardUse, where: str) -> list[Problem]:
    """Return a warning for a reward of a package, which is not among what a job brings along."""
    if use.kind is not None:
        return []
    what = f'"{use.name}" is of a package that the training image has to hold; a job brings none along'
    return [Problem(where=where, what=what, fix=f"build an image with it, as {_GUIDE} says")]
