"""The rules of the house that a linter does not know."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from orchestrator import errors
from orchestrator.contract.recipe import recipe_names

ROOT = Path(orchestrator.__file__).parents[1]
OURS = sorted(path for top in ("orchestrator", "entrypoints", "pretraining") for path in (ROOT / top).rglob("*.py"))
HEAVY = {
    "huggingface_hub",
    "torch",
    "numpy",
    "PIL",
    "boto3",
    "botocore",
    "diffusers",
    "tokenizers",
    "transformers",
    "yaml",
    "pydantic",
    "fastapi",
    "jinja2",
    "uvicorn",
}
BANNED_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib"}
PINNED_PICKLE = ROOT / "entrypoints" / "evaluation" / "efficientnet.py"
"""Reads weights that exist as a pickle only, if their hash is the one it knows, and without running code."""
BANNED_CALLS = {"eval", "exec", "compile", "torch.load", "torch.save", "os.system", "yaml.load", "np.load"}
BANNED_NAMES = {"utils", "common", "helpers", "manager", "misc"}


def test_no_module_defines_a_constant_twice() -> None:
    for path in OURS:
        names: list[str] = []
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign):
                names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        assert len(names) == len(set(names)), path


def imported_by(*words: str) -> set[str]:
    """Return the top-level modules a command imports, by the interpreter's own account."""
    command = [sys.executable, "-X", "importtime", "-m", "orchestrator", *words]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stderr.splitlines()
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize(
    "words",
    [
        *(("--help",), ("submit", "--help"), ("sweep", "--help"), ("jobs", "--help"), ("recipes", "show", "--help")),
        *(("infra", "up", "--help"), ("infra", "image", "--help"), ("models", "mirror", "--help")),
        *(("evaluate", "--help"), ("label", "--help")),
        *(("deploy", "--help"), ("endpoints", "--help"), ("endpoints", "update", "--help"), ("generate", "--help")),
    ],
)
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = imported_by(*words)
    assert "click" in modules
    assert modules.isdisjoint(HEAVY)


def test_listing_recipes_needs_no_torch() -> None:
    assert imported_by("recipes", "list").isdisjoint(HEAVY - {"pydantic"})


@pytest.mark.parametrize("words", [("submit", "dreambooth"), ("sweep", "dreambooth", "-s", "rank=4,8")], ids=str)
@pytest.mark.parametrize("target", ["local", "container", "sagemaker"])
def test_a_dry_run_imports_no_sdk_of_aws(words: tuple[str, ...], target: str) -> None:
    modules = imported_by(*words, "--dry-run", "--target", target)
    assert "pydantic" in modules
    assert modules.isdisjoint({"boto3", "botocore", "s3transfer", "sagemaker"})


def test_the_worker_of_a_local_job_imports_no_more_than_it_needs() -> None:
    code = "import sys, orchestrator.targets.local.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(done.stdout.split())
    assert imported.isdisjoint(HEAVY - {"pydantic"})
    assert "orchestrator.contract.recipe" not in imported  # the training decodes the settings


def test_a_store_in_a_bucket_is_opened_without_the_sdk_and_without_a_socket() -> None:
    code = """
import sys
sys.addaudithook(lambda event, _: event.startswith("socket.") and sys.exit(event))
import orchestrator.aws
from orchestrator.storage import S3Store
print(S3Store(orchestrator.aws.client.Aws("eu-west-1"), "bucket", "123456789012").uri("data/0/"))
assert not {"boto3", "botocore"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert outcome.stdout == "s3://bucket/data/0/\n"


def test_every_recipe_is_a_declaration_and_an_implementation_of_one_name() -> None:
    implemented = {path.stem.replace("_", "-") for path in (ROOT / "entrypoints" / "recipes").glob("[a-z]*.py")}
    assert implemented == set(recipe_names())


def test_every_error_is_drawn_in_the_tree() -> None:
    declared = {name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, Exception)}
    assert declared == {word for word in str(errors.__doc__).replace("─", " ").split() if word.endswith("Error")}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in OURS if path.stem in BANNED_NAMES] == []


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unpickles_evaluates_or_opens_a_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert _imports(node).isdisjoint(BANNED_MODULES)
        if isinstance(node, ast.Call):
            flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            called = ast.unparse(node.func)
            if called != "torch.load" or path != PINNED_PICKLE:
                assert called not in BANNED_CALLS
            else:
                assert flags.get("weights_only") == "True"
            assert flags.get("shell") != "True"
            assert flags.get("verify") != "False"
            assert flags.get("trust_remote_code") in {None, "False"}


def _imports(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {str(node.module).partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_the_client_is_imported_without_the_training_extra(tmp_path: Path) -> None:
    blocked = tmp_path / "torch.py"
    blocked.write_text("raise ImportError('not installed')")
    code = "import orchestrator.jobs.job, orchestrator.cli.results, orchestrator.cli.progress"
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    subprocess.run([sys.executable, "-c", code], env=variables, check=True)
