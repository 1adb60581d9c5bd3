"""Which base models can be personalised, told from the `model_index.json` of the diffusers layout."""

import json
from pathlib import Path

from orchestrator.contract.problem import did_you_mean

FAMILIES = {"StableDiffusionPipeline": "sd"}
"""Pipeline class to the name of its family."""


def family_of(folder: Path) -> str:
    """Return the family of the model in `folder`; raises ValueError that says what is wrong with it."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not index.is_file():
        raise ValueError(f"{folder} holds no model_index.json; a model in the diffusers layout has one")
    try:
        pipeline = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", "nothing"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read as JSON: {error}") from error
    if pipeline not in FAMILIES:
        raise ValueError(f"{folder} is a {pipeline}, which cannot be trained; {did_you_mean(pipeline, FAMILIES)}")
    return FAMILIES[pipeline]
