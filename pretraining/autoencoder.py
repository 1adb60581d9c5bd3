"""The autoencoder: a 64x64 picture to a 16x16x8 latent and back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from pretraining.examples import diet, scaled
from pretraining.machine import autocast, device
from pretraining.pictures import SIZE
from pretraining.training import StageSettings, fit, gradients_in_parts, randomness

CHANNELS = 8  # of a latent; with 4, small monsters lose their eyes in the autoencoder alone
CROP = 32  # twice the steps per second for the same number of pixels; the network is convolutional
PARTS = 2  # of a batch, each with its own thread
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 0.5
DISTURBANCE = 0.1  # of the latents' own spread: a denoiser's latents are never quite right, and must still decode well
FLIPPED_SHARE = 0.5
ENCODE_BATCH = 64


def build_autoencoder() -> AutoencoderKL:
    """Return the untrained network, small because two cores train it: thin at full size, no attention."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def train_autoencoder(settings: StageSettings, folder: Path, pictures: int) -> AutoencoderKL:
    """Train on crops of drawn pictures, photographs and dead leaves; return it with its scaling factor set."""
    torch.manual_seed(settings.seed)
    network = build_autoencoder().to(device())
    pool = diet(settings.seed, pictures)

    def losses(step: int) -> list[Callable[[], torch.Tensor]]:
        source = randomness(settings, step)
        crops = crops_of_step(settings, pool, source)
        disturbance = torch.randn(settings.batch, CHANNELS, CROP // 4, CROP // 4, generator=source)
        size = settings.batch // PARTS
        pairs = zip(crops.split(size), disturbance.split(size), strict=True)
        return [partial(autoencoder_loss, network, *(value.to(device()) for value in pair)) for pair in pairs]

    fit(network, settings, gradients_in_parts(network, losses), folder)
    network = network.cpu()
    network.register_to_config(scaling_factor=scaling_factor(network, pool[:1024]))
    return network


def crops_of_step(settings: StageSettings, pool: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Return crops (batch, 3, 32, 32) in -1..1 from one place of random pictures, flipped half of the time."""
    chosen = torch.randint(len(pool), (settings.batch,), generator=source)
    y, x = torch.randint((SIZE - CROP) // 4 + 1, (2,), generator=source) * 4
    crops = scaled(pool[chosen, :, y : y + CROP, x : x + CROP])
    flipped = torch.rand((), generator=source) < FLIPPED_SHARE
    return crops.flip(3) if flipped else crops


def autoencoder_loss(network: AutoencoderKL, pictures: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the error of pixels and of edges plus a little KL, for pictures (batch, 3, height, width) in -1..1.

    `noise` is standard normal, in the latents' shape. Pixels count squared and absolute. Edges are differences between
    neighbours: without them, thin dark lines such as the outline of an eye are the last thing to be learned.
    """
    with autocast():
        posterior = network.encode(pictures).latent_dist
        spread = posterior.std + DISTURBANCE * posterior.mean.detach().std()
        restored = network.decode(posterior.mean + spread * noise).sample
    error = restored.float() - pictures
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    mean, variance = posterior.mean.float(), posterior.var.float()
    kl = 0.5 * (mean.square() + variance - 1 - posterior.logvar.float()).mean()
    return 4 * error.square().mean() + error.abs().mean() + EDGE_WEIGHT * edges + KL_WEIGHT * kl


@torch.no_grad()
def encoded(network: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Return unscaled latents (count, 8, 16, 16) of uint8 pictures, the posterior's mean, batch by batch."""
    return torch.cat([network.encode(scaled(batch)).latent_dist.mean for batch in pictures.split(ENCODE_BATCH)])


def scaling_factor(network: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Return the factor that gives latents unit standard deviation, rounded for the config."""
    return round(1 / encoded(network, pictures).std().item(), 5)
