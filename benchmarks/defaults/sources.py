"""Where the defaults for models of photos come from; the values themselves are read from the declarations."""

from typing import Any, NamedTuple

from orchestrator.contract.families import STABLE_DIFFUSION
from orchestrator.contract.recipe import recipe_class

A_PHOTO_MODEL = "owner/model"
"""Any id of the Hugging Face Hub: every model but the built-in one has the same defaults."""


class Source(NamedTuple):
    """A default and where it comes from."""

    recipe: str
    field: str
    said: str
    chosen: tuple[tuple[str, str], ...] = ()
    """Other settings that the default depends on."""


SOURCES = (
    Source("dreambooth", "learning_rate", "diffusers' LoRA example"),
    Source(
        "dreambooth",
        "learning_rate",
        "the DreamBooth paper, for Stable Diffusion; diffusers' example",
        (("tuner", "full"),),
    ),
    Source(
        "dreambooth",
        "steps",
        "diffusers' LoRA example; for all weights it takes 400, with class pictures 800, and the paper about 1,000",
    ),
    Source("dreambooth", "batch_size", "diffusers' examples"),
    Source("dreambooth", "lr_schedule", "diffusers' examples"),
    Source("dreambooth", "rank", "ours; diffusers' script has 4"),
    Source("dreambooth", "prior_loss_weight", "the DreamBooth paper (lambda); diffusers' example"),
    Source("dreambooth", "class_images", "diffusers' script; its example takes 200, the paper about 1,000"),
    Source("dreambooth", "weight_decay", "diffusers' script"),
    Source("dreambooth", "max_grad_norm", "diffusers' script"),
    Source(
        "textual-inversion",
        "learning_rate",
        "diffusers' example, which multiplies it by batch and accumulation to 2e-3; it is not multiplied here. "
        "The authors' base rate is 5e-3",
    ),
    Source("textual-inversion", "steps", "diffusers' example; the authors' settings end at 6,100"),
    Source("textual-inversion", "batch_size", "diffusers' example, which accumulates 4 of them"),
    Source("textual-inversion", "lr_schedule", "diffusers' example"),
    Source("textual-inversion", "vectors", "the textual inversion paper: one embedding vector"),
    Source(
        "textual-inversion", "weight_decay", "ours: decay would pull the new word towards zero; the scripts have 1e-2"
    ),
)


def default_of(source: Source) -> Any:
    """Return the value that a recipe declares for a model of photos."""
    recipe = recipe_class(source.recipe)
    values = recipe.defaults({"base_model": A_PHOTO_MODEL, **dict(source.chosen)}, STABLE_DIFFUSION)
    return values.get(source.field, recipe.model_fields[source.field].default)
