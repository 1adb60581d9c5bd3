"""What the configurations of a model's parts have to say for it to be trained; defaults are those of the libraries."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orchestrator.contract.tokens import CLIP_LENGTH

Size = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
PredictionType = Literal["epsilon", "v_prediction"]
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)
"""What a denoiser that can be trained predicts."""


_OTHER_NOISE = ("EDM", "FlowMatch")
"""What the names of schedulers begin with whose noise is not that of DDPM."""
SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep"),
        *("EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM"),
        *("LMSDiscrete", "PNDM", "SASolver", "TCD", "UniPCMultistep"),
    )
)
"""Classes of diffusers that draw from a prompt with DDPM's noise."""


class Config(BaseModel):
    """A configuration; fields that do not matter are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class DenoiserConfig(Config):
    """A `UNet2DConditionModel` that is told of the prompt, and maybe of the image's size, and nothing else."""

    class_name: Literal["UNet2DConditionModel"] = Field("UNet2DConditionModel", alias="_class_name")
    """Its class in diffusers."""
    in_channels: Size = 4
    """Channels of the noisy latents, and of whatever else it is given beside them."""
    out_channels: Size = 4
    """Channels of its prediction."""
    conv_in_kernel: Size = 3
    """Side of the kernel of its first convolution."""
    conv_out_kernel: Size = 3
    """Side of the kernel of its last convolution."""
    block_out_channels: list[Size] = Field([320, 640, 1280, 1280], min_length=1, max_length=16)
    """Channels of each level."""
    cross_attention_dim: Size | Annotated[list[Size], Field(min_length=1)] = 1280
    """Width of the prompt's states, for all levels or for each."""
    encoder_hid_dim: Size | None = None
    """Width of the prompt's states where they are projected to the other width first."""
    class_embed_type: None = None
    """Kind of a class it would have to be told."""
    num_class_embeds: None = None
    """Number of classes, one of which it would have to be told."""
    addition_embed_type: str | None = None
    """What it is told beside the prompt."""
    addition_time_embed_dim: Size | None = None
    """Width of the embedding of each number of the image's size."""
    projection_class_embeddings_input_dim: Size | None = None
    """Width of the pooled prompt and the embedded size together."""
    quantization_config: None = None
    """How weights are packed that cannot be trained."""


class AutoencoderConfig(Config):
    """An `AutoencoderKL`."""

    class_name: Literal["AutoencoderKL"] = Field("AutoencoderKL", alias="_class_name")
    """Its class in diffusers."""
    in_channels: Literal[3] = 3
    """Channels of an image."""
    out_channels: Literal[3] = 3
    """Channels of a decoded image."""
    latent_channels: Size = 4
    """Channels of the latents."""
    block_out_channels: list[Size] = Field([64], min_length=1, max_length=16)
    """Channels of each level."""
    latents_mean: None = None
    """Mean of the latents of each channel, which would have to be taken off."""
    scaling_factor: float = Field(
        0.18215,
        gt=0,
        lt=1e4,
        allow_inf_nan=False,
        strict=True,
    )
    """Factor that brings latents to unit variance."""


class TextEncoderConfig(Config):
    """A CLIP text encoder."""

    model_type: Literal["clip", "clip_text_model"] = "clip_text_model"
    """Its kind in transformers."""
    vocab_size: Size = 49408
    """Tokens it knows."""
    hidden_size: Size = 512
    """Width of its states."""
    max_position_embeddings: Size = CLIP_LENGTH
    """Tokens of the longest prompt."""
    num_hidden_layers: Size = 12
    """Layers."""
    projection_dim: Size = 512
    """Width of the pooled prompt, where it is projected."""
    quantization_config: None = None
    """How weights are packed that cannot be trained."""


class VisionConfig(Config):
    """The image encoder of a CLIP."""

    hidden_size: Size = 768
    """Width of its states."""
    num_channels: Literal[3] = 3
    """Channels of an image."""
    image_size: Size = 224
    """Side of an image, pixels."""
    patch_size: Size = 32
    """Side of the squares that an image is cut into."""
    num_hidden_layers: Size = 12
    """Layers."""


class ClipConfig(Config):
    """The CLIP that judges images."""

    model_type: Literal["clip"] = Field(None, validate_default=True)
    """Its kind in transformers."""
    projection_dim: Size = 512
    """Width of the embeddings that are compared."""
    text_config: TextEncoderConfig = TextEncoderConfig()
    """Its text encoder."""
    vision_config: VisionConfig = VisionConfig()
    """Its image encoder."""

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, data: Any) -> Any:  # raw input of any shape: pydantic checks it after this
        """Merge what older files say of an encoder in two fields, the second of which takes precedence."""
        if not isinstance(data, Mapping):
            return data
        merged = dict(data)
        for name in ("text_config", "vision_config"):
            values: dict[str, Any] = {}
            for key in (name, f"{name}_dict"):
                value = data.get(key) or {}
                if not isinstance(value, Mapping):
                    return data
                values |= value
            merged[name] = values
        return merged


class SchedulerConfig(Config):
    """Noise as DDPM adds it."""

    class_name: str = Field("", alias="_class_name")
    """Its class in diffusers; most of them draw with the same noise."""
    prediction_type: PredictionType = "epsilon"
    """What the denoiser predicts."""
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    """Which timesteps are drawn at."""
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    """How the noise grows."""
    num_train_timesteps: Size = 1000
    """Timesteps."""

    @field_validator("class_name")
    @classmethod
    def _adds_noise_as_ddpm(cls, value: str) -> str:
        if value.startswith(_OTHER_NOISE):
            raise ValueError(f"{value} is of another noise than DDPM's")
        return value


class PreprocessorConfig(Config):
    """How the CLIP that judges images wants them: red, green and blue from 0 to 1, less the mean, by the deviation."""

    image_mean: list[Finite] | None = Field(None, min_length=3, max_length=3)
    """Mean of each colour."""
    image_std: list[Positive] | None = Field(None, min_length=3, max_length=3)
    """Standard deviation of each colour."""


class TokenizerConfig(Config):
    """A CLIP tokenizer."""

    model_max_length: float | None = Field(None, ge=3)
    """Tokens of the longest prompt. Where nobody set it, it is missing or 1e30: the text encoder knows better."""
