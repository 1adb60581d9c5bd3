"""Prompts that somebody writes for an evaluation, and what cannot be one."""

from pathlib import Path

import pytest

from orchestrator.contract.evaluation import MOST_LETTERS, MOST_PROMPTS
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import Recipe, recipe_class
from orchestrator.errors import SpecError
from orchestrator.specs.evaluation_prompts import read_prompts, unrelated_prompts, usual_prompts

DREAMBOOTH = recipe_class("dreambooth")(instance_prompt="a photo of a sks dog")
WORD = recipe_class("textual-inversion")(placeholder_token="<toy>", initializer_token="owl")
STYLE = recipe_class("lora")(trigger_word="inkstyle")


def read(folder: Path, text: str | bytes, recipe: Recipe = DREAMBOOTH) -> list[EvaluationPrompt]:
    file = folder / "prompts.txt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_prompts(file, recipe)


@pytest.mark.parametrize(
    ("recipe", "line", "prompt"),
    [
        (DREAMBOOTH, "{} on the moon", ("a sks dog on the moon", "a sks dog on the moon", "a dog on the moon")),
        (DREAMBOOTH, "my Sks dog asleep", ("my Sks dog asleep", "my Sks dog asleep", "my dog asleep")),
        (WORD, "{} in a tree", ("an owl in a tree", "<toy> in a tree", "an owl in a tree")),
        (WORD, "the <TOY> flies", ("the owl flies", "the <toy> flies", "the owl flies")),
        (STYLE, "a boat", ("a boat", "inkstyle, a boat", "a boat")),
    ],
)
def test_each_reader_is_asked_in_the_words_that_it_knows(
    tmp_path: Path, recipe: Recipe, line: str, prompt: tuple[str, str, str]
) -> None:
    (found,) = read(tmp_path, line, recipe)
    assert found == prompt


def test_empty_lines_remarks_repetitions_and_a_byte_order_mark_are_no_prompts(tmp_path: Path) -> None:
    found = read(tmp_path, b"\xef\xbb\xbf# places\r\n\r\n{} at sea\r\n  {} at sea  \r\n{} in snow\r\n")
    assert [prompt.text for prompt in found] == ["a dog at sea", "a dog in snow"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no prompt"),
        (b"# nothing but a remark\n", "holds no prompt"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "no text in UTF-8"),
        (b"{} at sea\x00\n", "NUL characters"),
        (b"{} at sea\x1b[2J\n", "control character"),
        (b"a boat\n{} at sea\na cat\n", 'line 1: names the subject neither by {} nor by its word "sks"'),
        (b"{} " + b"x" * MOST_LETTERS, f"at most {MOST_LETTERS}"),
        (b"\n".join(b"{} number %d" % number for number in range(MOST_PROMPTS + 1)), f"at most {MOST_PROMPTS}"),
        (b"{} at sea\n" * 30_000, "at most 200 kB"),
    ],
)
def test_a_file_that_holds_no_prompts_is_refused_in_one_message(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(SpecError) as refused:
        read(tmp_path, content)
    text = refused.value.render()
    assert says in text
    assert "one prompt a line" in refused.value.next_step
    assert "\x1b" not in text


def test_all_lines_at_fault_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        read(tmp_path, "a boat\n{} at sea\na cat\n")
    assert [problem.where for problem in refused.value.problems] == ["line 1", "line 3"]


@pytest.mark.parametrize("name", ["there is none", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_prompts(tmp_path / name, DREAMBOOTH)


def test_a_mark_for_the_subject_means_nothing_to_an_adapter_of_a_style(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be used") as refused:
        read(tmp_path, "{} at sea", STYLE)
    assert "this adapter has none" in refused.value.problems[0].what


def test_an_adapter_is_judged_by_its_recipe_also_when_its_own_job_drew_nothing() -> None:
    silent = DREAMBOOTH.model_copy(update={"evaluation_prompts": 0})
    assert len(usual_prompts(silent)) == 8
    assert usual_prompts(STYLE) == []  # its captions are not known here


@pytest.mark.parametrize("builtin", [True, False])
def test_unrelated_prompts_are_about_something_else(builtin: bool) -> None:
    monster = recipe_class("dreambooth")(instance_prompt="a photo of sks monster")
    asked = usual_prompts(monster)
    found = unrelated_prompts(asked, builtin=builtin)
    assert len(set(found)) == 8
    assert not [text for text in found if "monster" in text or "style" in text]
