"""What the configurations of a model's parts have to say for it to be trained; defaults are those of the libraries."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from orchestrator.contract.plurals import counted
from orchestrator.contract.tokens import CLIP_LENGTH

Size = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
PredictionType = Literal["epsilon", "v_prediction"]
PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)
"""What a denoiser that can be trained predicts."""


ACTIVATIONS = (
    "gelu",
    "gelu_10",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_pytorch_tanh",
    "gelu_accurate",
    "leaky_relu",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "swish",
    "tanh",
)
"""Names that transformers has for activations without weights of their own."""
DOWN_BLOCKS = (
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "AttnDownBlock2D",
    "ResnetDownsampleBlock2D",
    "SimpleCrossAttnDownBlock2D",
)
UP_BLOCKS = (
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    "AttnUpBlock2D",
    "ResnetUpsampleBlock2D",
    "SimpleCrossAttnUpBlock2D",
)
"""Names that diffusers has for the levels of a U-Net."""
_OLD_PREFIX = "UNetRes"  # of the names of levels in the first versions of diffusers, which it still reads
_OTHER_NOISE = ("EDM", "FlowMatch")
"""What the names of schedulers begin with whose noise is not that of DDPM."""
SCHEDULERS = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Classes of diffusers that draw from a prompt with DDPM's noise, and need no scipy, which the images do not have."""


class Config(BaseModel):
    """A configuration; fields that do not matter are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


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
    down_block_types: list[str] = Field([*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"], validate_default=True)
    """Kind of each level on the way down."""
    up_block_types: list[str] = Field(["UpBlock2D", *["CrossAttnUpBlock2D"] * 3], validate_default=True)
    """Kind of each level on the way up."""
    attention_head_dim: Size | list[Size] | None = 8
    """Heads of the attention, in all levels or in each: diffusers named it wrongly."""
    num_attention_heads: Size | list[Size] | None = None
    """Heads of the attention in newer models."""
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

    @field_validator("down_block_types", "up_block_types")
    @classmethod
    def _has_known_levels(cls, values: list[str], info: ValidationInfo) -> list[str]:
        for value in values:
            name = value.removeprefix(_OLD_PREFIX)
            if name not in (*DOWN_BLOCKS, *UP_BLOCKS):
                raise ValueError(f"names {value}, which diffusers does not have")
        channels = info.data.get("block_out_channels", values)
        if len(values) != len(channels):
            raise ValueError(f"names {len(values)} levels, and block_out_channels {len(channels)}")
        return values

    @field_validator("attention_head_dim", "num_attention_heads")
    @classmethod
    def _divides_the_channels(cls, value: int | list[int] | None, info: ValidationInfo) -> int | list[int] | None:
        channels = info.data.get("block_out_channels", [])
        heads = value or 1
        if isinstance(heads, int):
            heads = [heads] * len(channels)
        kinds = info.data.get("down_block_types", [])
        for width, number, kind in zip(channels, heads, kinds, strict=False):
            if "Attn" in kind and width % number:
                raise ValueError(f"is {number} in a level of {width} channels, which it does not divide")
        return value


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
    num_attention_heads: Size = Field(8, validate_default=True)
    """Heads of the attention in each layer."""
    hidden_act: str = "quick_gelu"
    """Activation of each layer."""
    projection_dim: Size = 512
    """Width of the pooled prompt, where it is projected."""
    quantization_config: None = None
    """How weights are packed that cannot be trained."""

    @field_validator("hidden_act")
    @classmethod
    def _is_an_activation(cls, value: str) -> str:
        if value not in ACTIVATIONS:
            raise ValueError(f"is {value}, an activation that transformers does not have")
        return value

    @field_validator("num_attention_heads")
    @classmethod
    def _divides_the_width(cls, value: int, info: ValidationInfo) -> int:
        width = info.data.get("hidden_size", value)
        if width % value:
            raise ValueError(f"is {value}, which does not divide the width of {width} (hidden_size)")
        return value


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
    beta_start: Share = 0.0001
    """Variance of the noise that the first timestep adds."""
    beta_end: Share = 0.02
    """The same of the last."""
    num_train_timesteps: Size = 1000
    """Timesteps."""
    trained_betas: list[Share] | None = None
    """The same of each timestep, where it follows no schedule."""
    use_beta_sigmas: bool | None = None
    """Whether the timesteps that are drawn at follow a beta distribution."""

    @field_validator("use_beta_sigmas")
    @classmethod
    def _needs_no_scipy(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("it takes the package scipy, which the images do not have; write false")
        return value

    @field_validator("class_name")
    @classmethod
    def _adds_noise_as_ddpm(cls, value: str) -> str:
        if value.startswith(_OTHER_NOISE):
            raise ValueError(f"{value} is of another noise than DDPM's")
        return value

    @field_validator("trained_betas")
    @classmethod
    def _has_one_for_each_timestep(cls, value: list[float] | None, info: ValidationInfo) -> list[float] | None:
        timesteps = info.data.get("num_train_timesteps")
        if value is not None and timesteps is not None and len(value) != timesteps:
            raise ValueError(f"{counted(len(value), 'beta')} for {counted(timesteps, 'timestep')}")
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
