"""Any CLIP of transformers in a folder can measure the figures; what cannot is refused before a job starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.contract.digest import tree_sha256
from orchestrator.contract.scorer import require_scorer, scorer_sha256
from orchestrator.errors import SpecError
from orchestrator.planning.inputs import prepare_inputs
from orchestrator.planning.plan import plan_here
from orchestrator.requests import channel_uris
from orchestrator.resources import BUILTIN_MODEL
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from orchestrator.specs.job_file import read_job_file
from orchestrator.storage import folder_of
from tests.planned import planned

WEIGHTS = "model.safetensors"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The folder of a whole CLIP, with notes that nothing reads."""
    folder = shutil.copytree(BUILTIN_MODEL / "clip", tmp_path / "clip")
    for file in (BUILTIN_MODEL / "tokenizer").iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text("notes")
    return folder


def spec(clip: Path | None, **fields: object) -> JobSpec:
    return build_spec({"recipe": "dreambooth", "scorer": clip, **fields})


def put(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names]


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def narrow(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "projection_dim": 64}))


def lose_a_shard(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": shards}))


DEFECTS = {
    "no config": (remove("config.json"), "no config.json"),
    "no preprocessor": (remove("preprocessor_config.json"), "no preprocessor_config.json"),
    "no tokenizer": (remove("vocab.json"), "no tokenizer"),
    "merges that are none": (put("merges.txt", "hello\n"), "merges.txt does not list which pairs"),
    "merges of another vocabulary": (put("merges.txt", "qq zz\n"), "the vocabulary has no qq"),
    "a vocabulary of truth values": (put("vocab.json", '{"a": true}'), "a vocabulary that is no list of tokens"),
    "a header of merges that is read as tokens": (
        put("merges.txt", "x#version: 0.2\n"),
        "a header that is read as tokens",
    ),
    "a special token that is a number": (put("special_tokens_map.json", '{"eos_token": 5}'), "eos_token is no text"),
    "pickled weights": (pickled, "no weights in the safetensors format"),
    "another model": (put("config.json", '{"model_type": "siglip"}'), 'type "siglip"'),
    "broken config": (put("config.json", "{"), "cannot be read as JSON"),
    "a list for a config": (put("config.json", "[]"), "holds no JSON object"),
    "a pointer": (put(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"), "git lfs pull"),
    "empty weights": (put(WEIGHTS, ""), "is empty"),
    "cut weights": (cut, "is cut"),
    "weights of another config": (narrow, "text_projection.weight has the shape [128, 128]"),
    "another vocabulary": (put("added_tokens.json", '{"<new>": 5000}'), "has tokens up to number 5000"),
    "a missing shard": (lose_a_shard, "model-00002-of-00002.safetensors"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_folder_that_cannot_measure_is_refused_before_a_job_starts(name: str, clip: Path) -> None:
    require_scorer(clip)
    spoil, words = DEFECTS[name]
    spoil(clip)
    with pytest.raises(SpecError) as raised:
        spec(clip)
    (problem,) = raised.value.problems
    assert problem.where == "scorer"
    assert words in problem.what
    assert "--scorer" in str(raised.value.next_step)


def test_a_folder_that_is_not_there_and_a_job_that_measures_nothing_are_refused(clip: Path) -> None:
    for scorer, settings in ((clip / "none", {}), (clip, {"evaluation_prompts": 0})):
        with pytest.raises(SpecError) as raised:
            spec(scorer, settings=settings)
        assert [problem.where for problem in raised.value.problems] == ["scorer"]


def test_a_job_file_names_a_scorer_beside_itself(clip: Path) -> None:
    job = clip.parent / "job.yaml"
    job.write_text("recipe: dreambooth\nscorer: clip\n")
    assert build_spec(read_job_file(job)).scorer == clip


def test_the_scorer_is_a_channel_of_its_own_here_and_on_sagemaker(
    clip: Path, settings: Settings, tmp_path: Path
) -> None:
    job = spec(clip)
    here = plan_here(job, settings, prepare_inputs(job, tmp_path / "staging"))
    assert folder_of(channel_uris(here.request)["scorer"]) == clip
    account = AwsSettings.placeholder()
    there = planned(job, settings, account)
    (tree,) = [
        tree for tree in there.trees if f"s3://{account.bucket}/{tree.name}" == channel_uris(there.request)["scorer"]
    ]
    assert set(tree.sources) == {path.name for path in clip.iterdir()} - {"README.md"}
    assert str(clip) not in json.dumps(there.request)


def test_another_scorer_is_another_job_and_none_is_the_job_it_was(clip: Path) -> None:
    plain, other = spec(None), spec(clip)
    assert plain.identity("d", "m") == other.identity("d", "m")
    assert len({other.identity("d", "m"), other.identity("d", "m", "one"), other.identity("d", "m", "two")}) == 3


def test_equal_scorers_have_equal_hashes_wherever_they_lie(clip: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(clip, tmp_path / "elsewhere")
    (elsewhere / "README.md").unlink()
    assert scorer_sha256(elsewhere) == scorer_sha256(clip) != tree_sha256({})
    (elsewhere / "vocab.json").write_text("{}")
    assert scorer_sha256(elsewhere) != scorer_sha256(clip)
