import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.contract.datasets import NOTHING
from orchestrator.contract.recipes.textual_inversion import TextualInversion
from orchestrator.errors import SpecError
from orchestrator.resources import SAMPLE_IMAGES
from orchestrator.specs.base_model import Builtin, Folder, Hub, parse_base_model
from orchestrator.specs.building import build_spec, declaration, defaults_of, require_said_once
from orchestrator.specs.job import JobSpec
from orchestrator.specs.job_file import parse_overrides, read_job_file
from tests.stand_ins.model import UNET, VAE, small_model, write_files


def problems(fields: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as raised:
        build_spec(fields)
    found: dict[str, str] = {}
    for problem in raised.value.problems:
        found[problem.where] = f"{found.get(problem.where, '')}\n{problem.render()}".strip()
    return found


def write_model(folder: Path) -> Path:
    """Write a folder that passes the offline checks of a base model."""
    return write_files(folder, small_model())


def test_nothing_but_a_recipe_means_the_sample_subject_on_the_built_in_model() -> None:
    for recipe in ("dreambooth", "textual-inversion"):
        spec = build_spec({"recipe": recipe})
        assert spec.inputs == {"images": SAMPLE_IMAGES}
        assert spec.base_model == Builtin()


def test_all_problems_of_a_job_are_reported_at_once(tmp_path: Path) -> None:
    settings = {"stepz": 1, "steps": 0, "rank": "many", "class_prompt": "a sks dog"}
    found = problems(
        {
            "recipe": "dreambooth",
            "images": tmp_path / "nothing",
            "prompt": "a photo of a dog",
            "name": "no spaces please",
            "base_model": "./nowhere/at/all",
            "colour": "red",
            "settings": settings,
        }
    )
    assert set(found) == {
        *("images", "instance_prompt", "name", "base_model", "colour"),
        *("stepz", "steps", "rank", "class_prompt"),
    }
    assert 'did you mean "steps"' in found["stepz"]
    assert "does not exist" in found["images"]


@pytest.mark.parametrize(("typed", "meant"), [("dreamboth", "dreambooth"), ("textual_inversion", "textual-inversion")])
def test_an_unknown_recipe_suggests_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(SpecError, match=f'did you mean "{meant}"'):
        build_spec({"recipe": typed})


def test_a_prompt_without_images_would_rename_the_sample_subject() -> None:
    assert "without images" in problems({"recipe": "dreambooth", "prompt": "a photo of sks dog"})["prompt"]


def test_images_without_a_prompt_do_not_get_the_samples_prompt(tmp_path: Path) -> None:
    assert "--prompt" in problems({"recipe": "dreambooth", "images": tmp_path})["instance_prompt"]


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "model_index.json" in problems({"recipe": "dreambooth", "base_model": str(tmp_path)})["base_model"]


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    found = problems({"recipe": "dreambooth", "base_model": str(tmp_path)})["base_model"]
    assert "is a FluxPipeline; only Stable Diffusion 1 and 2" in found


def test_everything_a_model_folder_lacks_is_reported_at_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / UNET).rename((model / UNET).with_suffix(".bin"))
    (model / VAE).rename(model / "vae" / "model.safetensors")
    (model / "scheduler" / "scheduler_config.json").unlink()
    found = problems({"recipe": "dreambooth", "base_model": str(model)})["base_model"]
    assert all(f"{part}/ has no" in found for part in ("unet", "vae", "scheduler"))
    assert "text_encoder" not in found
    assert found.count("\n") == 2


@pytest.mark.parametrize("write", ["command", "job file"])
def test_an_empty_base_model_is_not_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.chdir(write_model(tmp_path / "model"))
    job = tmp_path / "model" / "job.yaml"
    job.write_text('recipe: dreambooth\nbase_model: ""\n')
    fields = {"recipe": "dreambooth", "base_model": ""} if write == "command" else read_job_file(job)
    assert "is empty" in problems(fields)["base_model"]


def test_a_commit_is_for_models_of_the_hub(tmp_path: Path) -> None:
    settings = {"base_revision": "abc"}
    for base_model in ("builtin", str(write_model(tmp_path / "model"))):
        assert set(problems({"recipe": "dreambooth", "base_model": base_model, "settings": settings})) == {
            "base_revision"
        }
    assert build_spec({"recipe": "dreambooth", "base_model": "org/model", "settings": settings})


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"prompt": "a photo of X"}, "placeholder_token", '--prompt "<my-dog>"'),
        ({}, "placeholder_token", '--prompt "<my-dog>"'),
        ({}, "initializer_token", "-s initializer_token=dog"),
        ({"settings": {"initializer_token": "a dog"}}, "initializer_token", "-s initializer_token=dog"),
    ],
)
def test_a_word_that_is_missing_or_none_is_asked_for_with_an_example(
    tmp_path: Path, fields: dict[str, Any], field: str, words: str
) -> None:
    found = problems({"recipe": "textual-inversion", "images": tmp_path, **fields})[field]
    assert words in found
    assert "pattern" not in found


def test_a_field_like_no_other_is_not_answered_with_the_whole_list() -> None:
    found = problems({"recipe": "dreambooth", "settings": {"qqqq": 1}})["qqqq"]
    assert "steps" not in found


def test_the_next_step_is_about_what_is_wrong() -> None:
    def next_step(**fields: Any) -> str:
        with pytest.raises(SpecError) as raised:
            build_spec({"recipe": "dreambooth", **fields})
        return raised.value.next_step

    nowhere = {"images": "/no/such/folder", "prompt": "a sks dog"}
    assert "--images DIR" in next_step(**nowhere)
    assert next_step(**nowhere, settings={"steps": 0}) == "python -m orchestrator recipes show dreambooth"


def sized_model(folder: Path, latents: object) -> str:
    """Write a model folder with a sample size, and a VAE that halves the side three times."""
    write_model(folder)
    for part, changed in (("unet", {"sample_size": latents}), ("vae", {"block_out_channels": [4, 4, 4, 4]})):
        path = folder / part / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    return str(folder)


@pytest.mark.parametrize(("latents", "resolution"), [(96, 768), (32, 256), ([64, 96], 512), (None, 512)])
def test_a_model_folder_knows_its_resolution(
    tmp_path: Path,
    latents: object,
    resolution: int,
) -> None:
    fields = {"recipe": "dreambooth", "base_model": sized_model(tmp_path / "model", latents)}
    assert build_spec(fields).recipe.resolution == resolution
    assert build_spec(fields, {"resolution": "128"}).recipe.resolution == 128
    assert build_spec({**fields, "settings": {"resolution": 160}}).recipe.resolution == 160


def test_a_hub_id_is_not_checked_offline() -> None:
    assert build_spec({"recipe": "dreambooth", "base_model": "org/some-model"}).base_model == Hub(
        "org/some-model", None
    )


def test_overrides_are_converted_to_the_types_of_their_fields() -> None:
    pairs = [
        "steps=12",
        "validation_steps=6",
        "learning_rate=1e-3",
        "prior_preservation=false",
        "snr_gamma=5",
        'validation_prompts=["a","b"]',
    ]
    recipe = build_spec({"recipe": "dreambooth"}, parse_overrides(pairs)).recipe.model_dump()
    assert (recipe["steps"], recipe["learning_rate"], recipe["prior_preservation"]) == (12, 1e-3, False)
    assert (recipe["snr_gamma"], recipe["validation_prompts"]) == (5.0, ("a", "b"))


def test_an_override_in_brackets_can_be_a_token_and_null_is_none(tmp_path: Path) -> None:
    fields = {"recipe": "dreambooth", "images": tmp_path, "prompt": "a photo of [V] dog"}
    recipe = build_spec(fields, parse_overrides(["rare_token=[V]", "snr_gamma=null"])).recipe.model_dump()
    assert (recipe["rare_token"], recipe["snr_gamma"]) == ("[V]", None)
    words = parse_overrides(["rare_token=null", "instance_prompt=a null dog"])
    assert build_spec({"recipe": "dreambooth"}, words).recipe.trigger == "a null dog"


@pytest.mark.parametrize(
    ("recipe", "options", "settings", "field"),
    [
        ("textual-inversion", {"prompt": "<dog>"}, {"placeholder_token": "<cat>"}, "placeholder_token"),
        ("dreambooth", {"prompt": "a sks dog"}, {"instance_prompt": "a sks cat"}, "instance_prompt"),
        ("dreambooth", {"base_model": "org/one"}, {"base_model": "org/two"}, "base_model"),
        (
            "dreambooth",
            {"instance_type": "ml.g5.xlarge"},
            {"compute.instance_type": "ml.g6.xlarge"},
            "compute.instance",
        ),
        ("dreambooth", {"spot": True}, {"compute.spot": "false"}, "compute.spot"),
        ("dreambooth", {"max_usd": "3"}, {"budget.max_usd": "30"}, "budget.max_usd"),
    ],
)
def test_a_setting_that_would_overrule_an_option_silently_is_refused(
    recipe: str, options: dict[str, Any], settings: dict[str, str], field: str
) -> None:
    with pytest.raises(SpecError) as raised:
        require_said_once(recipe, options, settings)
    assert field in raised.value.render()
    assert "leave one of them out" in raised.value.render()
    require_said_once(recipe, options, {"steps": "3"})
    require_said_once(recipe, {"prompt": None}, settings)


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"tuner": "full", "rank": 4, "alpha": 2}, {"rank", "alpha"}),
        (
            {"prior_preservation": True, "prior_loss_weight": 0, "class_prompt": "a dog", "class_images": 4},
            {"class_prompt", "class_images"},
        ),
        ({"prior_preservation": False, "class_prompt": "a dog", "class_images": 4}, {"class_prompt", "class_images"}),
        ({"prior_preservation": False, "prior_loss_weight": 0.5}, {"prior_loss_weight"}),
        ({"evaluation_prompts": 0, "evaluation_seeds": 2}, {"evaluation_seeds"}),
        ({"validation_steps": 10}, {"validation_steps"}),
        (
            {"prior_preservation": False, "evaluation_prompts": 0, "inference_steps": 9, "guidance_scale": 2},
            {"inference_steps", "guidance_scale"},
        ),
        ({"rank": 4, "alpha": 2, "inference_steps": 9}, set()),
        ({"prior_preservation": True, "class_prompt": "a dog", "class_images": 4}, set()),
        ({"tuner": "full", "prior_preservation": False, "evaluation_prompts": 0}, set()),
    ],
)
def test_a_setting_that_another_one_makes_idle_is_warned_of(settings: dict[str, Any], idle: set[str]) -> None:
    in_file = build_spec({"recipe": "dreambooth", "settings": settings})
    typed = build_spec({"recipe": "dreambooth"}, {name: str(value) for name, value in settings.items()})
    for spec in (in_file, typed):
        assert {warning.where for warning in spec.warnings} == idle
        assert all("has no effect" in warning.render() for warning in spec.warnings)


def test_overrides_without_a_value_are_all_reported() -> None:
    with pytest.raises(SpecError) as raised:
        parse_overrides(["steps", "=3"])
    assert len(raised.value.problems) == 2


def test_a_list_that_is_not_json_is_a_problem_among_others() -> None:
    words = parse_overrides(["validation_prompts=[a", "steps=0"])
    with pytest.raises(SpecError) as raised:
        build_spec({"recipe": "dreambooth"}, words)
    assert [problem.where for problem in raised.value.problems] == ["validation_prompts", "steps"]


def test_overrides_replace_the_job_files_settings() -> None:
    fields = {"recipe": "dreambooth", "settings": {"steps": 5, "seed": 5}}
    recipe = build_spec(fields, {"steps": "7"}).recipe
    assert (recipe.steps, recipe.seed) == (7, 5)


@pytest.mark.parametrize("settings", [[1, 2], "steps", 3])
def test_settings_that_are_no_mapping_are_a_problem(settings: object) -> None:
    assert "settings" in problems({"recipe": "dreambooth", "settings": settings})


@pytest.mark.parametrize("value", [".inf", ".nan", "-.inf"])
def test_numbers_have_to_be_finite(tmp_path: Path, value: str) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(f"recipe: dreambooth\nsettings: {{prior_loss_weight: {value}}}\n")
    assert "prior_loss_weight" in problems(read_job_file(job))


@pytest.mark.parametrize("images", ["", "~no-such-user/photos"])
def test_an_empty_or_unknown_folder_is_not_the_sample(images: str) -> None:
    assert "images" in problems({"recipe": "dreambooth", "images": images})


def test_the_home_of_an_unknown_user_is_no_base_model() -> None:
    assert "base_model" in problems({"recipe": "dreambooth", "base_model": "~no-such-user/model"})


def test_folders_in_a_job_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    job = tmp_path / "job.yaml"
    job.write_text("recipe: dreambooth\nimages: dog\nprompt: a photo of sks dog\nsettings:\n  steps: 7\n")
    spec = build_spec(read_job_file(job))
    assert spec.inputs == {"images": tmp_path / "dog"}
    assert spec.recipe.steps == 7


@pytest.mark.parametrize("text", ["- a list", "{", "just words", "\x00", ""])
def test_a_file_that_is_not_a_job_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"job\.yaml"):
        read_job_file(tmp_path / "job.yaml")


@pytest.mark.parametrize("text", ["images: dog\n", "recipe:\n"])
def test_a_job_file_without_a_recipe_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(SpecError, match="names no recipe"):
        build_spec(read_job_file(tmp_path / "job.yaml"))


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("recipe: dreambooth\nname: a\nsettings:\n  steps: 5\n  seed: 1\n  steps: 7\nname: b\n")
    with pytest.raises(SpecError) as raised:
        read_job_file(job)
    assert [problem.render() for problem in raised.value.problems] == [
        "steps: is in line 4 and again in line 6",
        "name: is in line 2 and again in line 7",
    ]


def test_a_yaml_tag_does_not_run_code(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("recipe: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(SpecError):
        read_job_file(tmp_path / "job.yaml")


@pytest.mark.parametrize("name", ["dog", "my-dog-2", "A" * 40])
def test_names_a_job_can_have(name: str) -> None:
    assert build_spec({"recipe": "dreambooth", "name": name}).name == name


@pytest.mark.parametrize("name", ["", "../up", "a b", "-dog", "a--b", "A" * 41, "dög"])
def test_names_a_job_cannot_have(name: str) -> None:
    assert "name" in problems({"recipe": "dreambooth", "name": name})


def test_the_identity_changes_with_whatever_changes_the_result() -> None:
    first = build_spec({"recipe": "dreambooth"})
    others = [
        build_spec({"recipe": "dreambooth", "settings": {"seed": 1}}),
        build_spec({"recipe": "dreambooth", "name": "dog"}),
        build_spec({"recipe": "textual-inversion"}),
    ]
    same = build_spec({"recipe": "dreambooth", "settings": {"seed": 0}})
    assert first.identity("data", "model") == same.identity("data", "model")
    identities = {spec.identity("data", "model") for spec in [first, *others]}
    identities |= {first.identity("other data", "model"), first.identity("data", "other model")}
    assert len(identities) == 6
    hub = [build_spec({"recipe": "dreambooth", "base_model": name}) for name in ("org/one", "org/other")]
    assert hub[0].identity("data", None) != hub[1].identity("data", None)


def test_a_folder_is_the_same_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    for way in ("model", "./model/", str(tmp_path / "model")):
        assert build_spec({"recipe": "dreambooth", "base_model": way}).base_model == Folder(tmp_path / "model")


@pytest.mark.parametrize("text", ["base_model: ../org/model", "settings:\n  base_model: ../org/model"])
def test_a_base_model_in_a_job_file_is_relative_to_it_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    model = write_model(tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    job = Path("jobs", "job.yaml")
    job.parent.mkdir()
    job.write_text(f"recipe: dreambooth\n{text}\n")
    assert build_spec(read_job_file(job)).base_model == Folder(model)


def test_a_folder_comes_before_a_model_of_the_hub_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_base_model("org/model", "v1") == Hub("org/model", "v1")
    write_model(tmp_path / "org" / "model")
    assert parse_base_model("org/model") == Folder(tmp_path / "org" / "model")


@pytest.fixture
def prompts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual inversion as a recipe that learns from no files, as long as the test runs."""
    monkeypatch.setattr(TextualInversion, "dataset", NOTHING)


@pytest.mark.usefixtures("prompts_only")
def test_a_recipe_without_inputs_takes_no_images(tmp_path: Path) -> None:
    fields = {"recipe": "textual-inversion", "prompt": "<my-dog>", "settings": {"initializer_token": "dog"}}
    assert build_spec(fields).inputs == {}
    found = problems({**fields, "images": tmp_path, "settings": {"steps": 0}})
    assert found["images"] == "images: textual-inversion does not train on images (leave --images out)"
    assert set(found) == {"images", "initializer_token", "steps"}


def test_a_job_has_the_inputs_of_its_recipe(tmp_path: Path) -> None:
    recipe = build_spec({"recipe": "dreambooth"}).recipe
    for inputs in ({}, {"maps": tmp_path}, {"images": tmp_path, "maps": tmp_path}):
        with pytest.raises(ValidationError, match="are not those of the recipe"):
            JobSpec(recipe=recipe, inputs=inputs)


NOT_TEXT = [
    "a sks \udcff dog",
    "a sks \ud800 dog",
    "a sks \0 dog",
    "a sks \x1b[2J dog",
    "a sks \x7f dog",
    "sks \x85 dog",
]


@pytest.mark.parametrize("text", NOT_TEXT)
@pytest.mark.parametrize(
    ("field", "where"),
    [
        *(
            ("prompt", "instance_prompt"),
            ("name", "name"),
            ("base_model", "base_model"),
            ("compute", "compute.instance_type"),
        ),
        *(
            ("class_prompt", "class_prompt"),
            ("rare_token", "rare_token"),
            ("validation_prompts", "validation_prompts[1]"),
        ),
    ],
)
def test_what_is_no_text_is_refused_in_every_field(tmp_path: Path, text: str, field: str, where: str) -> None:
    fields: dict[str, Any] = {"recipe": "dreambooth", "images": tmp_path, "prompt": "a sks dog"}
    typed = parse_overrides(["class_prompt=a dog"])
    if field in {"prompt", "name", "base_model"}:
        fields[field] = text
    elif field == "compute":
        fields[field] = {"instance_type": text}
    elif field == "validation_prompts":
        typed[field] = json.dumps(["a dog", text])
    else:
        typed[field] = text
    with pytest.raises(SpecError) as raised:
        build_spec(fields, typed)
    shown = {problem.where: problem.what for problem in raised.value.problems}
    assert "not UTF-8" in shown[where] or "control character" in shown[where]
    assert raised.value.render().encode()


def test_the_name_of_a_setting_that_is_no_text_is_refused_too() -> None:
    with pytest.raises(SpecError) as raised:
        build_spec({"recipe": "dreambooth"}, {"st\udcffeps": "3"})
    assert raised.value.render().encode()


def test_a_folder_of_images_may_have_a_name_of_any_bytes_and_a_prompt_several_lines(tmp_path: Path) -> None:
    folder = tmp_path / "b\udcffd"
    folder.mkdir()
    spec = build_spec({"recipe": "dreambooth", "images": str(folder), "prompt": "a sks\n\tdog\n"})
    assert spec.inputs == {"images": folder}


@pytest.mark.parametrize(
    "name", ["gone\udcff", "~nobody-of-this-name\udcff/a", "\ud800", "n" * 300, "/dev/null/a\udcff", "file\udcff"]
)
def test_a_folder_of_images_that_cannot_be_is_one_problem_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file\udcff").touch()
    with pytest.raises(SpecError) as raised:
        build_spec({"recipe": "dreambooth", "images": name, "prompt": "a sks dog"})
    (problem,) = raised.value.problems
    assert problem.where == "images"
    assert raised.value.render().encode()
    assert "codec" not in problem.what


@pytest.mark.parametrize(
    "field",
    [
        *("steps", "class_images", "batch_size", "gradient_accumulation", "keep_checkpoints", "checkpoint_steps"),
        *("validation_steps", "warmup_steps", "checkpoint_minutes", "inference_steps", "guidance_scale", "rank"),
    ],
)
def test_a_number_that_is_a_slip_of_the_finger_is_refused(field: str) -> None:
    found = problems({"recipe": "dreambooth", "settings": {field: 999_999_999_999}})
    assert "less than or equal to" in found[field] or "leaves nothing" in found[field]


JARGON = ("valid ", "tuple", "string", "integer", "parse", "constrained", "Input", "unicode", "after validation")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": "many"}, "steps: should be a whole number, not 'many'"),
        ({"steps": 1.5}, "steps: should be a whole number, not 1.5"),
        ({"steps": "9" * 5000}, "steps: should be a whole number of fewer digits, not '999"),
        ({"learning_rate": "fast"}, "learning_rate: should be a number, not 'fast'"),
        ({"learning_rate": "nan"}, "learning_rate: should be a finite number, not 'nan'"),
        ({"prior_preservation": "maybe"}, "prior_preservation: should be true or false, not 'maybe'"),
        ({"tuner": "both"}, "tuner: should be 'lora', 'dora', 'lokr', 'loha', 'oft' or 'full', not 'both'"),
        ({"class_prompt": ["a"]}, "class_prompt: should be a text, not ['a']"),
        ({"validation_prompts": "sks"}, "validation_prompts: should be a list, not 'sks' (write it as ["),
        ({"validation_prompts": [1]}, "validation_prompts[0]: should be a text, not 1"),
        ({"rare_token": ""}, "rare_token"),
    ],
)
def test_a_value_of_another_type_is_said_in_plain_words(settings: dict[str, Any], words: str) -> None:
    (shown,) = problems({"recipe": "dreambooth", "settings": settings}).values()
    assert shown.startswith(words)
    assert len(shown) < 250
    for word in JARGON:
        assert word not in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("wide", "cross_attention_dim should be a whole number or a list, not 'wide'"),
        ([8, "wide"], "cross_attention_dim[1] should be a whole number, not 'wide'"),
        (0, "cross_attention_dim should be greater than or equal to 1, not 0"),
    ],
)
def test_a_value_that_may_be_of_several_types_has_one_problem(tmp_path: Path, value: object, words: str) -> None:
    model = write_model(tmp_path / "model")
    path = model / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": value}))
    found = problems({"recipe": "dreambooth", "base_model": str(model)})
    assert words in found["base_model"]
    assert "\n" not in found["base_model"]


@pytest.mark.parametrize("index", ["{}", '{"_class_name": null}', '{"_class_name": 3}', '{"_class_name": ""}'])
def test_an_index_without_a_pipeline_says_so(tmp_path: Path, index: str) -> None:
    (tmp_path / "model_index.json").write_text(index)
    found = problems({"recipe": "dreambooth", "base_model": str(tmp_path)})["base_model"]
    assert "names no pipeline" in found


@pytest.mark.parametrize("chosen", [{"nope": "1"}, {"tuner": "\udcff"}, {"steps": "0", "rank": "many"}])
def test_settings_that_are_only_looked_at_are_no_job(chosen: dict[str, str]) -> None:
    with pytest.raises(SpecError) as raised:
        defaults_of(declaration("dreambooth"), chosen)
    message = raised.value.render()
    assert message.encode()
    assert "nothing was started" not in message
    assert " job " not in message
