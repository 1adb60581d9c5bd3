"""Models of a Hub on a loopback address, downloaded by the real client library and stored in a bucket."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.aws.client import Aws
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.model_layout import files_sha256, model_files
from orchestrator.errors import AccountError, HubError, MachineError, OrchestratorError, ServiceError, SpecError
from orchestrator.models.mirror import Mirroring, find_mirrored, list_mirrored, mirror
from orchestrator.storage import S3Store
from tests.faults.wire import Wire
from tests.models.conftest import BUCKET
from tests.models.server import Answer, Files, HubServer, files_of
from tests.stand_ins.model import UNET, json_of, small_model

MODEL = "org/model"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"  # noqa: S105  (of the Hub below)
Put = Callable[..., Mirroring]


@pytest.fixture
def put(store: S3Store) -> Put:
    return lambda model_id=MODEL, revision=None: mirror(store, model_id, revision, lambda _line: None)


def test_a_model_is_copied_with_what_a_run_reads_and_nothing_else(
    hub: HubServer,
    store: S3Store,
    put: Put,
    files: Files,
    tmp_path: Path,
    digest_of: Callable[[bytes], FileDigest],
) -> None:
    repository = hub.add(MODEL, files)
    model, is_new = put()
    read = {name: content for name, content in files.items() if content != b"nothing reads this"}
    tree = store.name(model.uri)
    assert {name.removeprefix(tree) for name in store.list_prefix(tree)} == set(read)
    store.get_files(tree, {name: digest_of(content) for name, content in read.items()}, tmp_path / "copy")
    copied = files_of(tmp_path / "copy")
    assert is_new
    assert (model.id, model.revision, model.commit) == (MODEL, "main", repository.refs["main"])
    assert model.bytes == sum(map(len, copied.values()))
    # the hash that a job's identity has for the same model in a folder
    assert model.sha256 == files_sha256(tmp_path / "copy", model_files(tmp_path / "copy"))


def test_what_is_mirrored_is_found_by_branch_and_by_commit(
    hub: HubServer, store: S3Store, put: Put, files: Files
) -> None:
    hub.add(MODEL, files)
    model, _ = put()
    for revision in (None, "main", model.commit):
        assert find_mirrored(store, MODEL, revision) == model
    assert find_mirrored(store, "Org/Model", None) == model  # the Hub ignores case
    for model_id, revision in ((MODEL, "other"), ("org/other", None), ("org/..", None)):
        assert find_mirrored(store, model_id, revision) is None


@pytest.mark.parametrize("uri", ["s3://somebody-else/models/latest/", f"s3://{BUCKET}/adapters/mine/", "file:///etc"])
def test_a_record_that_was_replaced_does_not_move_a_job_to_what_is_not_checked(
    hub: HubServer, store: S3Store, put: Put, files: Files, uri: str
) -> None:
    hub.add(MODEL, files)
    model, _ = put()
    replaced = model.model_copy(update={"uri": uri}).model_dump(mode="json")
    for record in store.list_prefix("manifests/hub/"):
        store.put_json(record, replaced)
    assert find_mirrored(store, MODEL, None) == model
    assert {listed.uri for listed in list_mirrored(store)} == {model.uri}


def test_a_branch_whose_record_was_replaced_names_a_commit_and_not_its_content(
    hub: HubServer, store: S3Store, put: Put, files: Files
) -> None:
    hub.add(MODEL, files)
    model, _ = put()
    changes = {"sha256": "0" * 64, "bytes": 0, "id": "org/other"}
    replaced = model.model_copy(update=changes).model_dump(mode="json")
    store.put_json("manifests/hub/org%2Fmodel/main.json", replaced)
    assert find_mirrored(store, MODEL, None) == model
    assert [listed.sha256 for listed in list_mirrored(store)] == [model.sha256]
    store.put_json("manifests/hub/org%2Fmodel/main.json", {**replaced, "commit": "f" * 40})
    assert find_mirrored(store, MODEL, None) is None
    assert put() == (model, False)


def test_a_commit_that_is_recorded_with_another_content_is_not_overruled(
    hub: HubServer, store: S3Store, put: Put, files: Files
) -> None:
    repository = hub.add(MODEL, files)
    commit = repository.refs["main"]
    model, _ = put()
    record = f"manifests/hub/org%2Fmodel/{commit}.json"
    store.put_json(record, model.model_copy(update={"sha256": "0" * 64}).model_dump(mode="json"))
    with pytest.raises(AccountError, match="has another content") as raised:
        put()
    assert raised.value.next_step.startswith(f"aws s3 rm s3://{BUCKET}/{record}")


def test_a_record_without_a_hash_is_no_record(hub: HubServer, store: S3Store, put: Put, files: Files) -> None:
    hub.add(MODEL, files)
    model, _ = put()
    replaced = model.model_copy(update={"sha256": "../code"}).model_dump(mode="json")
    for record in store.list_prefix("manifests/hub/"):
        store.put_json(record, replaced)
    assert find_mirrored(store, MODEL, None) is None


def test_mirroring_twice_fetches_and_stores_nothing(
    hub: HubServer, wire: Wire, put: Put, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(MODEL, files)
    first = put()
    hub.asked.clear()
    wire.sent.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    again = put()
    assert (again.model, again.is_new) == (first.model, False)
    assert [one.path for one in hub.asked] == [f"/api/models/{MODEL}/revision/main"]
    assert set(wire.sent) == {"GetObject", "ListObjectsV2"}


def test_a_branch_with_a_new_commit_is_copied_again_and_the_old_commit_stays(
    hub: HubServer, store: S3Store, put: Put, files: Files
) -> None:
    repository = hub.add(MODEL, files)
    old, _ = put()
    repository.push({**files, UNET: files[UNET][:-1] + b"x"})
    assert find_mirrored(store, MODEL, None) == old  # until it is mirrored again
    new, is_new = put()
    assert is_new
    assert find_mirrored(store, MODEL, None) == new
    assert find_mirrored(store, MODEL, old.commit) == old
    assert old.uri != new.uri
    assert list_mirrored(store) == [new, old]


def test_another_revision_of_a_stored_commit_costs_one_small_object(
    hub: HubServer, store: S3Store, wire: Wire, put: Put, files: Files
) -> None:
    repository = hub.add(MODEL, files)
    first, _ = put()
    repository.refs["refs/pr/1"] = first.commit
    hub.asked.clear()
    wire.sent.clear()
    second, is_new = put(revision="refs/pr/1")
    assert (second.uri, is_new) == (first.uri, False)
    assert hub.downloads() == []
    assert wire.count("PutObject") == 1
    assert find_mirrored(store, MODEL, "refs/pr/1") == second
    assert {one.revision for one in list_mirrored(store)} == {"main", "refs/pr/1"}


def test_a_copy_that_lost_a_file_is_not_used_and_is_completed(
    hub: HubServer, store: S3Store, put: Put, files: Files, aws: Aws
) -> None:
    hub.add(MODEL, files)
    model, _ = put()
    tree = store.name(model.uri)
    aws.client("s3").delete_object(Bucket=BUCKET, Key=f"{tree}{UNET}")
    assert find_mirrored(store, MODEL, None) is None
    with pytest.raises(AccountError, match="deleted") as raised:
        put()
    note = f"manifests/{tree.rstrip('/')}.json"
    assert f"aws s3 rm s3://{BUCKET}/{note}" in raised.value.next_step
    aws.client("s3").delete_object(Bucket=BUCKET, Key=note)
    assert put().is_new
    found = find_mirrored(store, MODEL, None)
    assert found
    assert found.uri == model.uri


def index(pipeline: str) -> bytes:
    return f'{{"_class_name": "{pipeline}"}}'.encode()


def pickled(files: Files) -> Files:
    return {name.replace(".safetensors", ".bin"): content for name, content in files.items()}


def inpainting(files: Files) -> Files:
    config = {**json.loads(files["unet/config.json"]), "in_channels": 9}
    return {**files, "unet/config.json": json_of(config)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files: {**files, "model_index.json": index("FluxPipeline")}, "FluxPipeline"),
        (pickled, "unet/ has no diffusion_pytorch_model.safetensors"),
        (lambda _files: {"model.safetensors": b"all in one"}, "model_index.json"),
        (lambda files: {**files, "model_index.json": b"<html>"}, "is a web page"),
        (inpainting, "made for inpainting"),
    ],
    ids=["another family", "pickles", "one file", "no JSON", "inpainting"],
)
def test_a_model_that_cannot_be_trained_is_refused_before_its_weights_are_downloaded(
    hub: HubServer, wire: Wire, put: Put, files: Files, spoil: Callable[[Files], Files], words: str
) -> None:
    hub.add(MODEL, spoil(files))
    with pytest.raises(SpecError) as raised:
        put()
    assert words in raised.value.render()
    assert "--base-model" in raised.value.next_step
    assert not any(path.endswith(".safetensors") for path in hub.downloads())
    assert wire.count("PutObject") == 0


def signed_in(hub: HubServer, monkeypatch: pytest.MonkeyPatch, *models: str) -> None:
    hub.tokens[TOKEN] = set(models)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_a_gated_model_is_downloaded_with_a_token_that_only_the_hub_gets(
    hub: HubServer, wire: Wire, put: Put, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(MODEL, files, gated=True)
    signed_in(hub, monkeypatch, MODEL)
    model, _ = put()
    # the library asks the Hub for other things too, once a process
    by_token = {one.token for one in hub.asked if MODEL in one.path}
    elsewhere = {one.token for one in hub.asked if MODEL not in one.path}
    assert any(one.path.startswith("/stored/") for one in hub.asked)
    assert (by_token, elsewhere) == ({TOKEN}, {None})
    sent = [f"{request.url} {request.headers} {request.body!r}" for request in wire.requests]
    assert sent
    assert not any(TOKEN in text for text in [*sent, model.model_dump_json()])


@pytest.mark.parametrize(
    ("who", "words", "next_step"),
    [
        (
            "no token",
            "gated, and this machine is not signed in",
            f"https://huggingface.co/{MODEL}, then: hf auth login",
        ),
        ("no access", "has not been granted access", f"https://huggingface.co/{MODEL}, wait"),
        ("an invalid token", "does not accept this machine's token", "hf auth login"),
    ],
)
def test_a_gated_model_says_what_is_missing(
    hub: HubServer, put: Put, files: Files, monkeypatch: pytest.MonkeyPatch, who: str, words: str, next_step: str
) -> None:
    hub.add(MODEL, files, gated=True)
    if who != "no token":
        signed_in(hub, monkeypatch)
    if who == "an invalid token":
        hub.tokens.clear()
    with pytest.raises(HubError, match=words) as raised:
        put()
    assert next_step in raised.value.next_step
    assert TOKEN not in raised.value.render()


@pytest.mark.parametrize(
    ("model_id", "revision", "words", "next_step"),
    [
        ("org/nothing", None, 'no model "org/nothing"', "check the name"),
        ("org/secret", None, 'no model "org/secret"', "if the model is private: hf auth login"),
        (MODEL, "no-such-branch", 'no branch, tag or commit "no-such-branch"', f"{MODEL}/tree/main"),
        (MODEL, "0" * 40, "no branch, tag or commit", f"{MODEL}/tree/main"),
        ("gpt2", None, "not the name of a model", "org/model"),
        ("org/..", None, "not the name of a model", "org/model"),
        ("./base-model", None, "not the name of a model", "org/model"),
        (f"org/{TOKEN}", None, "A secret would leave", "remove it"),
    ],
)
def test_a_missing_model(
    hub: HubServer, put: Put, files: Files, model_id: str, revision: str | None, words: str, next_step: str
) -> None:
    hub.add(MODEL, files)
    hub.add("org/secret", files, private=True)
    with pytest.raises(SpecError, match=words) as raised:
        put(model_id, revision)
    assert next_step in raised.value.next_step
    assert TOKEN not in raised.value.render()


@pytest.mark.parametrize("status", [500, 429, 200])
def test_a_failing_hub(hub: HubServer, put: Put, status: int) -> None:
    hub.broken = Answer(status, {}, b"<html>")
    with pytest.raises(ServiceError, match="Hugging Face Hub") as raised:
        put()
    assert "try again" in raised.value.next_step


def test_a_partial_cache_is_not_used_as_the_model(
    hub: HubServer, wire: Wire, put: Put, files: Files, tmp_path: Path
) -> None:
    repository = hub.add(MODEL, files)
    hub.broken, hub.broken_at = Answer(403, {}), "/tree/"
    snapshot = tmp_path / "cache" / "models--org--model" / "snapshots" / repository.refs["main"] / "unet"
    snapshot.mkdir(parents=True)  # as when only this part was used before
    (snapshot / "config.json").write_bytes(files["unet/config.json"])
    with pytest.raises(ServiceError, match="did not send all"):
        put()
    assert wire.count("PutObject") == 0
    hub.broken = None
    assert put().is_new


def test_a_token_of_too_narrow_rights(hub: HubServer, put: Put) -> None:
    hub.broken = Answer(403, {})
    with pytest.raises(HubError, match="does not let") as raised:
        put()
    assert "hf auth login" in raised.value.next_step


def test_an_unreachable_hub(hub: HubServer, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ServiceError, match="cannot be reached") as raised:
        put()
    assert "HF_ENDPOINT" in raised.value.next_step


def test_offline_by_choice(hub: HubServer, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MachineError, match="HF_HUB_OFFLINE") as raised:
        put()
    assert "unset HF_HUB_OFFLINE" in raised.value.next_step


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_disk_that_is_too_small(
    hub: HubServer, wire: Wire, put: Put, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        hub.add(MODEL, {**files, UNET: bytes(300_000)})
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(small))
        with pytest.raises(MachineError, match="disk is full") as raised:
            put()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "HF_HOME" in raised.value.next_step
    assert wire.count("PutObject") == 0


def run(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("words", [("mirror", MODEL), ("list",)])
def test_without_an_account_models_cannot_be_mirrored(words: tuple[str, ...]) -> None:
    result = run("models", *words)
    assert (result.returncode, result.stdout) == (6, "")
    assert "-m orchestrator infra up" in result.stderr


def test_a_missing_package_is_reported(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as Python marks a module that cannot be imported
    with pytest.raises(MachineError, match="not installed") as raised:
        put()
    assert raised.value.next_step == "pip install 'orchestrator[hub]'"


def test_an_unknown_answer_of_the_hub_is_not_repeated(
    hub: HubServer,
    put: Put,
    files: Files,
) -> None:
    hub.add(MODEL, files)
    hub.broken = Answer(418, {"X-Error-Message": "words of the Hub"})
    with pytest.raises(OrchestratorError) as raised:
        put()
    assert "words of the Hub" not in raised.value.render()


def test_a_model_of_two_text_encoders_is_copied_with_both(hub: HubServer, store: S3Store, put: Put) -> None:
    hub.add(MODEL, small_model("sdxl"))
    model, _ = put()
    names = {name.removeprefix(store.name(model.uri)) for name in store.list_prefix(store.name(model.uri))}
    assert {"text_encoder_2/model.safetensors", "tokenizer_2/vocab.json", "text_encoder/config.json"} <= names


def test_a_model_with_weights_of_half_precision_alone_is_copied_with_them(
    hub: HubServer, store: S3Store, put: Put, files: Files
) -> None:
    only = {name: content for name, content in files.items() if content != b"nothing reads this"}
    only = {name.replace(".safetensors", ".fp16.safetensors"): content for name, content in only.items()}
    hub.add(MODEL, {**only, "unet/diffusion_pytorch_model.ema.safetensors": b"nothing reads this"})
    model, _ = put()
    tree = store.name(model.uri)
    assert {name.removeprefix(tree) for name in store.list_prefix(tree)} == set(only)


def test_a_model_of_the_hub_is_checked_before_anything_is_uploaded(
    hub: HubServer, wire: Wire, put: Put, files: Files
) -> None:
    hub.add(MODEL, {**files, UNET: files[UNET][:-2]})
    with pytest.raises(SpecError, match="cannot be trained; nothing was uploaded") as raised:
        put()
    assert f"{UNET} is cut: the last 2 bytes" in raised.value.render()
    assert wire.count("PutObject") == 0


@pytest.mark.parametrize(
    ("address", "command"),
    [
        (f"https://huggingface.co/{MODEL}", f"models mirror {MODEL}"),
        (f"huggingface.co/{MODEL}/blob/v1/unet/config.json", f"models mirror {MODEL} --revision v1"),
    ],
)
def test_the_address_of_a_page_is_answered_with_the_command_for_its_model(put: Put, address: str, command: str) -> None:
    with pytest.raises(SpecError, match="not the name of a model") as raised:
        put(address)
    assert raised.value.next_step == f"python -m orchestrator {command}"
