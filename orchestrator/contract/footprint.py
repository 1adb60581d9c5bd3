"""What a recipe takes of a model: the figures from which memory and time are estimated before a GPU is paid for."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class ModelSize(BaseModel):
    """The figures of a latent diffusion model (U-Net, autoencoder, text encoders) that memory and time depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    denoiser: int
    """Parameters of the denoiser."""
    vae: int
    """Parameters of the autoencoder."""
    text_encoders: int
    """Parameters of the text encoders together."""
    clip: int = 0
    """Parameters of the CLIP that a model brings for its figures."""
    control: int = 0
    """Parameters of a ControlNet for it."""
    denoiser_lora: Mapping[str, int]
    """Parameters of a LoRA of rank 1 on the denoiser, by the recipe's `targets`."""
    text_lora: Mapping[str, int]
    """The same on the text encoders."""
    resnet_channels: float
    """Sum over the U-Net's residual blocks of channels, each divided by how many latent pixels share one of its own."""
    transformer_channels: float
    """The same sum over its transformer blocks."""
    attention_channels: float
    """The same sum again, each divided once more by those latent pixels: every token attends to every other."""
    denoiser_macs: float
    """Multiply-adds for each latent pixel in the layers of the U-Net that have weights."""
    denoiser_layers: int
    """Convolutions and linear layers of the U-Net: starting their kernels is the least that a pass takes."""
    text_states: int
    """Tokens of a prompt x layers x width, summed over the text encoders."""
    text_width: int
    """Width of an embedding, summed over the text encoders."""
    decoder_channels: int
    """Channels of the autoencoder's decoder where it is widest at full resolution."""
    scale: int
    """Pixels to a latent, along each side."""


class Footprint(BaseModel):
    """What a recipe trains, in numbers, on one device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trained: int
    """Parameters with gradients and optimizer state."""
    added: int = 0
    """Parameters that come on top of the model's own."""
    samples: int
    """Samples in a forward pass."""
    kept: float
    """Share of the denoiser's activations that the backward pass needs; frozen layers keep less."""
    passes: int = 3
    """Operations of a step, in forward passes: 3 with the gradients of activations and weights."""
    text: bool
    """Whether the text encoders' activations are kept too."""


PASSES_FULL = 3
"""Forward pass, gradients of the activations, gradients of the weights: each takes the same operations."""
PASSES_FROZEN = 2
"""The same without the gradients of the weights, where nearly all of them are frozen."""

# Counted with the tensors that autograd keeps; tests/planning/test_memory.py counts them again.
KEPT_FULL = 1.0
"""Share of activations kept when every weight is trained."""
KEPT_LORA = 0.86
"""The same for low-rank adapters on the attention."""
KEPT_CONTROL = 0.9
"""The same for a ControlNet: all of its own, which is like the denoiser's first half, and those of the second half."""
KEPT_EMBEDDING = 0.79
"""The same when only the text encoder's input is trained."""
