"""What is measured of one trial, kept as a JSON file under a hash of all that it depends on."""

import os
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.defaults.grid import Trial
from benchmarks.defaults.subjects import SUBJECTS
from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.model_layout import files_sha256, model_files
from orchestrator.contract.recipe import BUILTIN_RESOLUTION
from orchestrator.datasets import prepare

Grid = tuple[tuple[float, ...], ...]
"""A figure of each evaluation image: a row for each prompt, in it one for each seed."""


class Moment(BaseModel):
    """What a model draws, compared by CLIP: one mean cosine for each image."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    subject: Grid
    """With the pictures of the subject."""
    prompt: Grid
    """With the prompt, without the subject's own word."""


class ClassLook(BaseModel):
    """What a model draws when it is asked for the bare class."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    variety: float
    """1 - mean pairwise cosine among the images."""
    subject: float
    """Mean cosine with the pictures of the subject."""
    images: tuple[float, ...] = ()
    """The same of each image, in the order of `CLASS_SEEDS`; results of older rows lack it."""


class Result(BaseModel):
    """All figures of one trial."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trial: Trial
    """What was trained."""
    ceiling: float
    """Mean cosine among the pictures of the subject."""
    before: Moment
    """The base model."""
    after: Moment
    """The tuned one."""
    perfect: Moment
    """The subject drawn by program on the background of each prompt, one image a prompt: what can be reached."""
    class_before: ClassLook | None = None
    """The base model; None for a recipe that leaves the model as it is."""
    class_after: ClassLook | None = None
    """The tuned one."""
    seconds: float
    """CPU seconds of the training, class pictures included, imports and evaluation not."""


class Workplace(BaseModel):
    """The folder of a grid: pictures, results, and what is looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: Path
    """The folder."""
    base_model: Path
    """Folder of the built-in model that is trained: the packaged one or a candidate."""
    base_model_sha256: str
    """Hash of every file of it that a run reads."""
    pictures_sha256: dict[str, str]
    """Hash of each subject's prepared pictures."""

    @classmethod
    def prepare(cls, root: Path, base_model: Path, subjects: list[str]) -> "Workplace":
        """Write the pictures of some subjects as a submit would, unless the same are there."""
        root = root.resolve()
        base_model = base_model.resolve()
        hashes = {}
        for name in subjects:
            hashes[name] = _write_pictures(root, name)
        return cls(
            root=root,
            base_model=base_model,
            base_model_sha256=files_sha256(base_model, model_files(base_model)),
            pictures_sha256=hashes,
        )

    def key(self, trial: Trial) -> str:
        """Return what a trial is kept under."""
        return trial.key(self.base_model_sha256, self.pictures_sha256[trial.subject])

    def pictures(self, trial: Trial) -> Path:
        """Return the folder of the prepared pictures of a trial's subject."""
        return _pictures(self.root, trial.subject, self.pictures_sha256[trial.subject])

    def folder(self, trial: Trial) -> Path:
        """Return the folder of a trial: its log and contact sheet, while it runs the job's folders too."""
        return self.root / "trials" / self.key(trial)

    def find(self, trial: Trial) -> Result | None:
        """Return a result that was kept, under the name that its row has now; None if there is none."""
        try:
            found = Result.model_validate_json(self._file(trial).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return found.model_copy(update={"trial": trial})

    def keep(self, result: Result) -> None:
        """Write a result whole or not at all."""
        path = self._file(result.trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(path)

    def _file(self, trial: Trial) -> Path:
        return self.root / "results" / f"{self.key(trial)}.json"


def _write_pictures(root: Path, subject: str) -> str:
    """Write the prepared pictures of a subject and return their hash."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        source = SUBJECTS[subject].write(Path(folder) / "drawn")
        draft = Path(folder) / "prepared"
        prepare(source, draft, resolution=BUILTIN_RESOLUTION)
        sha256 = tree_sha256(hash_files(draft))
        final = _pictures(root, subject, sha256)
        final.parent.mkdir(exist_ok=True)
        if not final.is_dir():
            draft.rename(final)
    return sha256


def _pictures(root: Path, subject: str, sha256: str) -> Path:
    return root / "pictures" / f"{subject}-{sha256[:12]}"
