"""A job file means what it looks like, or says what to put in quotes."""

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.specs.building import build_spec
from orchestrator.specs.job import JobSpec
from orchestrator.specs.job_file import read_job_file
from orchestrator.specs.yaml_file import MAX_BYTES


def built(tmp_path: Path, text: str) -> JobSpec:
    job = tmp_path / "job.yaml"
    job.write_text(text)
    return build_spec(read_job_file(job))


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(SpecError) as raised:
        built(tmp_path, text)
    return raised.value.render()


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("steps: 010", "steps", 10),
        ("steps: 1_000", "steps", 1000),
        ("steps: +300", "steps", 300),
        ("learning_rate: 1e-4", "learning_rate", 1e-4),
        ("learning_rate: .001", "learning_rate", 1e-3),
        ("prior_preservation: no", "prior_preservation", False),
        ("prior_preservation: On", "prior_preservation", True),
        ("prior_preservation: 'false'", "prior_preservation", False),
        ("snr_gamma: null", "snr_gamma", None),
        ("snr_gamma: ~", "snr_gamma", None),
        ("snr_gamma:", "snr_gamma", None),
        ("snr_gamma: # off", "snr_gamma", None),
        ("snr_gamma: null #off", "snr_gamma", None),
        ("snr_gamma: 5", "snr_gamma", 5.0),
        ("validation_prompts: [no, 010, 'a: b']", "validation_prompts", ("no", "010", "a: b")),
        ("class_prompt: 2024-01-01", "class_prompt", "2024-01-01"),
        ("class_prompt: 12:30", "class_prompt", "12:30"),
        ("class_prompt: 0x1F", "class_prompt", "0x1F"),
        ("class_prompt: .inf", "class_prompt", ".inf"),
        ("class_prompt: 'a: b #3'", "class_prompt", "a: b #3"),
        ("class_prompt: a dog # of a friend", "class_prompt", "a dog"),
        ("class_prompt: a dog#3", "class_prompt", "a dog#3"),
        ("class_prompt: it's a dog", "class_prompt", "it's a dog"),
        ("class_prompt: =", "class_prompt", "="),
        ("class_prompt: !!str 12", "class_prompt", "12"),
        ("steps: 300 #enough", "steps", 300),
        ("steps: !!int 300", "steps", 300),
    ],
)
def test_a_plain_word_is_what_it_looks_like(tmp_path: Path, line: str, field: str, value: Any) -> None:
    job = f"recipe: dreambooth\nsettings:\n  validation_steps: 1\n  {line}\n"
    assert built(tmp_path, job).recipe.model_dump()[field] == value


@pytest.mark.parametrize("name", ["123", "no", "on", "1e5", "2024-01-01", "007", "y"])
def test_a_name_or_a_token_may_look_like_another_type(tmp_path: Path, name: str) -> None:
    fields = f"recipe: dreambooth\nname: {name}\nimages: {SAMPLE_IMAGES}\nprompt: a photo of {name} dog\n"
    spec = built(tmp_path, f"{fields}settings:\n  rare_token: {name}\n")
    assert spec.name == name
    assert spec.recipe.model_dump()["rare_token"] == name


@pytest.mark.parametrize(
    "line",
    [
        *("prompt: a photo of sks #3 dog", "prompt: a: sks dog", "prompt: sks dog:", "prompt: @sks dog"),
        *("prompt: %sks dog", "prompt: `sks` dog", "prompt: *sks dog", "prompt: &sks dog", "prompt: !sks dog"),
        *(
            "prompt: [V] dog",
            "prompt: [V]",
            "prompt: {sks} dog",
            "prompt: {sks}",
            'prompt: "sks" dog',
            "prompt: - sks dog",
        ),
        *("prompt: ? sks dog", "prompt: > sks dog", "prompt: | sks dog", 'prompt: "sks \\dog"', "prompt: 'sks dog"),
        *("settings: {rare_token: null}", "settings: {rare_token: }", "settings: {rare_token: [V]}", "name: [V]"),
        *("settings: {<<: {steps: 3}, *x : 3}", "images: [photos]", "base_model: {a: b}", "settings: {a: !x 3}"),
    ],
)
def test_what_yaml_would_change_or_cut_is_refused_with_quotes_as_the_remedy(tmp_path: Path, line: str) -> None:
    images = "" if line.startswith("images") else f"images: {SAMPLE_IMAGES}\n"
    prompt = "" if line.startswith("prompt") else "prompt: a photo of sks dog\n"
    text = refused(tmp_path, f"recipe: dreambooth\n{images}{prompt}{line}\n")
    assert "quotes" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("field", ["images", "prompt", "base_model", "name"])
@pytest.mark.parametrize("value", ["", "~", "null", "# a comment"])
def test_a_text_without_a_value_is_not_taken_for_one_that_was_left_out(tmp_path: Path, field: str, value: str) -> None:
    text = refused(tmp_path, f"recipe: dreambooth\n{field}: {value}\nsettings:\nbudget:\n")
    assert f"{field}: has no value" in text
    assert "quotes" in text


@pytest.mark.parametrize(
    "line",
    [
        *("prompt: #1 sks dog", "name: #7", "base_model: #1", "images: #photos", "settings: #3"),
        *("settings:\n  class_prompt: #1 monster", "settings:\n  alpha: #8", "settings:\n  snr_gamma: #5"),
        *("settings:\n  base_revision: #main", "settings:\n  validation_prompts:\n    - #1 sks monster"),
    ],
)
def test_a_value_that_is_all_comment_is_refused_with_quotes_as_the_remedy(tmp_path: Path, line: str) -> None:
    text = refused(tmp_path, f"recipe: dreambooth\n{line}\n")
    assert 'before "#' in text
    assert "put quotes around" in text


@pytest.mark.parametrize("line", ["class_prompt:", "class_prompt: ~", "class_prompt: null"])
def test_a_class_prompt_without_a_value_is_not_taken_for_one_that_was_left_out(tmp_path: Path, line: str) -> None:
    text = refused(tmp_path, f"recipe: dreambooth\nsettings:\n  {line}\n")
    assert "class_prompt: should be a text" in text
    assert "quotes" in text


@pytest.mark.parametrize(
    "text",
    [
        *("%x\nrecipe: dreambooth\n", "recipe: dreambooth\n%x: 3\n", "recipe: dreambooth\n%\n", "%a\n%b\nc: d\n"),
        *("prompt: *bold*\n", "prompt: * dog\n", "prompt: *\n", "prompt: & dog\n", "prompt: &&a dog\n"),
        *("prompt: !<x\n", "prompt: !a!b dog\n", "prompt: !%zz x\n", "prompt: |sks dog\n", "prompt: >sks dog\n"),
        *('prompt: "\\xyz"\n', 'prompt: "\\u00zz"\n', "prompt: ? sks dog\n", "%YAML 3.0\n---\na: b\n"),
    ],
)
def test_a_text_that_is_a_sign_to_yaml_is_told_without_the_words_of_the_library(tmp_path: Path, text: str) -> None:
    said = refused(tmp_path, text)
    assert not re.search("expected|found|document ended", said)
    assert "line 1" in said or "%" in said
    assert "quotes" in said or "%YAML" in said


def test_a_line_is_named(tmp_path: Path) -> None:
    assert "line 2" in refused(tmp_path, "recipe: dreambooth\nprompt: a: b\n")
    assert "line 2, prompt" in refused(tmp_path, "recipe: dreambooth\nprompt: a sks dog #3\n")


def test_tabs_are_named(tmp_path: Path) -> None:
    assert "spaces" in refused(tmp_path, "recipe: dreambooth\nsettings:\n\tsteps: 3\n")


def test_a_key_that_is_repeated_at_any_depth_is_refused(tmp_path: Path) -> None:
    assert "again in line 4" in refused(tmp_path, "recipe: dreambooth\ncompute:\n  spot: yes\n  spot: no\n")
    assert "keys twice" in refused(tmp_path, "recipe: dreambooth\nsettings: {a: {b: 1, b: 2}}\n")


@pytest.mark.parametrize(
    "text",
    [
        "settings: &all\n  all: *all\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "[" * 20_000,
        "? [recipe]\n: dreambooth\n",
        "recipe: dreambooth\n---\nrecipe: dreambooth\n",
        "recipe: \ud800".encode("utf-8", "surrogatepass"),
        b"recipe: dreambooth\0",
        b"#" * (MAX_BYTES + 1),
    ],
    ids=range(8),
)
def test_a_file_that_is_hostile_or_odd_is_one_message(tmp_path: Path, text: str | bytes) -> None:
    job = tmp_path / "job.yaml"
    job.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as raised:
        read_job_file(job)
    assert raised.value.next_step


def test_the_sections_are_read_in_the_same_way(tmp_path: Path) -> None:
    text = "recipe: dreambooth\ncompute:\n  spot: yes\n  volume_gb: 0100\nbudget:\n  max_usd: 1.50\n"
    spec = built(tmp_path, text)
    assert (spec.compute.spot, spec.compute.volume_gb, str(spec.budget.max_usd)) == (True, 100, "1.50")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_bytes(b"\xef\xbb\xbfrecipe: dreambooth\r\nsettings:\r\n  steps: 3\r\n")
    assert build_spec(read_job_file(job)).recipe.steps == 3


@pytest.mark.parametrize(
    ("text", "line", "reason", "remedy"),
    [
        ('recipe: dreambooth\nprompt: "sks dog\nname: x\n', 2, "quotation mark that opens here is not closed", "close"),
        ("recipe: dreambooth\nprompt: 'sks dog\n\n\n", 2, "quotation mark that opens here is not closed", "close"),
        ("recipe: dreambooth\nprompt: 'it's a dog'\n", 2, "behind a closing quote", "quotes"),
        ("recipe: dreambooth\nsettings: {steps: 3\nname: x\n", 2, "bracket that opens here is not closed", "close"),
        ("recipe: dreambooth\n---\nrecipe: dreambooth\n", 2, "second document", "a file of its own"),
        ("recipe: dreambooth\n...\nname: x\n", 3, "document ended", "a file of its own"),
        (f"recipe: dreambooth\nsettings: {'[' * 30}{']' * 30}\n", 2, "more than 20 deep", "without the inner ones"),
        ("recipe dreambooth\nname: x\n", 2, "colon", "quotes"),
        ("recipe: dreambooth\nname\n", 3, "is not `field: value`", "colon and a space"),
        ('recipe: "dream\\booth\\d"\n', 1, "backslash", "twice"),
    ],
)
def test_a_fault_of_yaml_is_said_in_plain_words_with_its_line_and_its_own_remedy(
    tmp_path: Path, text: str, line: int, reason: str, remedy: str
) -> None:
    message, next_step = refused(tmp_path, text).splitlines()
    assert f"line {line} cannot be read: " in message
    assert reason in message
    assert remedy in next_step
    assert "<" not in message
