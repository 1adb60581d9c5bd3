"""A text that looks like a secret is refused in every field of a job, and no message repeats it."""

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.errors import SpecError
from orchestrator.secret_scan import looks_like
from orchestrator.settings import AwsSettings, Settings
from orchestrator.specs.building import build_spec
from tests.planned import planned

LETTERS = "".join(random.Random(0).choices(string.ascii_letters + string.digits, k=100))
TOKEN = f"hf_{LETTERS[:34]}"
KEY = "AKIA" + LETTERS.upper()[:16]
SECRETS = {
    "Hugging Face": TOKEN,
    "access key": KEY,
    "secret key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "session": "IQoJb3JpZ2luX2VjE" + LETTERS,
    "GitHub": f"ghp_{LETTERS[:36]}",
    "fine-grained": f"github_pat_{LETTERS[:22]}_{LETTERS[:59]}",
    "API key": f"sk-proj-{LETTERS[:48]}",
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "password": "https://kim:hunter2@example.org/models",
    "password alone": "redis://:hunter2@cache:6379",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("around", ["{}", "a photo of {}, asleep", "dog_{}_2.jpg", "token={}"])
def test_a_secret_is_recognised_within_any_text(secret: str, around: str) -> None:
    assert looks_like(around.format(secret))


@pytest.mark.parametrize(
    "text",
    [
        "a photo of sks dog, in the style of a 1920s postcard; 50% grey & blue",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole-20240101T123456",
        "arn:aws:iam::123456789012:role/OrchestratorExecutionRole2024ForTraining",
        "s3://Team-Models/Stable/Diffusion/V15/Unet2DConditionModel/Weights",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com/training@sha256:" + "0a" * 32,
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "hf-internal-testing/tiny-stable-diffusion-torch",
        "/home/Kim/Pictures/Models/Stable15/Dogs/x",
        "https://huggingface.co/org/model@main",
        "sk-dog-who-lives-in-a-garden-2024",
        "ml.g5.xlarge",
    ],
)
def test_other_texts_are_no_secrets(text: str) -> None:
    assert looks_like(text) is None


def test_the_value_of_a_secret_variable_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("SHORT_TOKEN", "dog")
    assert looks_like("run 0123456789abcdef0123456789abcdef01234567") == "the value of WANDB_API_KEY"
    assert looks_like("a photo of sks dog") is None


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("one", "red"), ("two", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
    return folder


def refusal(settings: Settings, fields: dict[str, Any], image: str = "training:1") -> SpecError:
    """Plan a job and return why it was refused."""
    account = AwsSettings.placeholder("eu-west-1").model_copy(update={"training_image": image})
    with pytest.raises(SpecError) as raised:
        planned(build_spec({"recipe": "dreambooth", **fields}), settings, account)
    return raised.value


def assert_silent(refused: SpecError, secret: str, where: str) -> None:
    assert [problem.where for problem in refused.problems] == [where]
    assert secret not in refused.render()
    assert refused.next_step.startswith("remove it")


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_every_secret_in_a_prompt_is_refused(
    settings: Settings,
    pictures: Path,
    secret: str,
) -> None:
    fields = {"images": pictures, "prompt": f"a photo of sks dog {secret}", "settings": {"class_prompt": "a dog"}}
    assert_silent(refusal(settings, fields), secret, "recipe.instance_prompt")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"name": KEY}, "name"),
        ({"base_model": f"org/{TOKEN}", "settings": {"resolution": 64}}, "recipe.base_model"),
        ({"base_model": "org/model", "settings": {"resolution": 64, "base_revision": TOKEN}}, "recipe.base_revision"),
        ({"settings": {"class_prompt": f"a dog {TOKEN}"}}, "recipe.class_prompt"),
        (
            {"recipe": "textual-inversion", "prompt": f"<{TOKEN}>", "settings": {"initializer_token": "dog"}},
            "recipe.placeholder_token",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_secret_in_any_field_is_refused(
    settings: Settings, pictures: Path, fields: dict[str, Any], where: str
) -> None:
    secret = KEY if where == "name" else TOKEN
    refused = refusal(settings, {"images": pictures, "prompt": "a photo of sks dog", **fields})
    assert_silent(refused, secret, where)


def test_a_secret_in_a_caption_beside_its_picture_is_refused(settings: Settings, pictures: Path) -> None:
    (pictures / "one.txt").write_text(f"a photo of sks dog {TOKEN}")
    refused = refusal(settings, {"images": pictures, "prompt": "a photo of sks dog"})
    assert_silent(refused, TOKEN, "pictures.one.png")


def test_a_secret_in_the_table_of_captions_is_refused(settings: Settings, pictures: Path) -> None:
    line = {"file_name": "two.png", "text": f"sks dog, {SECRETS['password']}"}
    (pictures / "metadata.jsonl").write_text(json.dumps(line))
    refused = refusal(settings, {"images": pictures, "prompt": "a photo of sks dog"})
    assert_silent(refused, SECRETS["password"], "pictures.two.png")


def test_a_secret_in_a_pictures_name_is_refused(settings: Settings, pictures: Path) -> None:
    (pictures / "one.png").rename(pictures / f"{TOKEN}.png")
    refused = refusal(settings, {"images": pictures, "prompt": "a photo of sks dog"})
    assert_silent(refused, TOKEN, "pictures.<hidden>")


def test_a_secret_as_the_owner_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_OWNER", f"kim {TOKEN}")
    assert_silent(refusal(settings, {}), TOKEN, "ORCHESTRATOR_OWNER")


def test_a_password_in_the_images_address_is_refused(settings: Settings) -> None:
    assert_silent(refusal(settings, {}, image=SECRETS["password"]), "hunter2", "training_image")


def test_all_secrets_of_a_job_are_named_at_once(
    settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_OWNER", TOKEN)
    (pictures / "one.txt").write_text(f"sks dog {TOKEN}")
    fields = {"images": pictures, "prompt": f"a photo of sks dog {TOKEN}", "settings": {"class_prompt": "a dog"}}
    found = {problem.where for problem in refusal(settings, fields).problems}
    assert found == {"recipe.instance_prompt", "pictures.one.png", "ORCHESTRATOR_OWNER"}
