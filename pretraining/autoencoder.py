"""The autoencoder: a 64x64 picture to a 16x16x4 latent and back."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from pretraining.examples import diet, scaled
from pretraining.pictures import SIZE
from pretraining.training import StageSettings, fit, gradients_of, randomness

CROP = 32  # twice the steps per second for the same number of pixels; the network is convolutional
KL_WEIGHT = 1e-4
DISTURBANCE = 0.15  # of the latents' own spread: a denoiser's latents are never quite right, and must still decode well
FLIPPED_SHARE = 0.5
ENCODE_BATCH = 64


def build_autoencoder() -> AutoencoderKL:
    """Return the untrained network, small because two cores train it: thin at full size, no attention."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def train_autoencoder(settings: StageSettings, folder: Path, pictures: int) -> AutoencoderKL:
    """Train on crops of drawn pictures, photographs and dead leaves; return it with its scaling factor set."""
    torch.manual_seed(settings.seed)
    network = build_autoencoder()
    pool = diet(settings.seed, pictures)

    def loss(step: int) -> torch.Tensor:
        generator = randomness(settings, step)
        chosen = torch.randint(len(pool), (settings.batch,), generator=generator)
        y, x = torch.randint((SIZE - CROP) // 4 + 1, (2,), generator=generator) * 4
        flip = torch.rand((), generator=generator) < FLIPPED_SHARE
        crop = scaled(pool[chosen, :, y : y + CROP, x : x + CROP])
        return autoencoder_loss(network, crop.flip(3) if flip else crop, generator)

    fit(network, settings, gradients_of(loss), folder)
    network.register_to_config(scaling_factor=scaling_factor(network, pool[:1024]))
    return network


def autoencoder_loss(network: AutoencoderKL, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return squared plus absolute pixel error plus a little KL, for pictures (batch, 3, height, width) in -1..1."""
    posterior = network.encode(pictures).latent_dist
    spread = posterior.std + DISTURBANCE * posterior.mean.detach().std()
    latents = posterior.mean + spread * torch.randn(posterior.mean.shape, generator=generator)
    error = network.decode(latents).sample - pictures
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return 4 * error.square().mean() + error.abs().mean() + KL_WEIGHT * kl


@torch.no_grad()
def encoded(network: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Return unscaled latents (count, 4, 16, 16) of uint8 pictures, the posterior's mean, batch by batch."""
    return torch.cat([network.encode(scaled(batch)).latent_dist.mean for batch in pictures.split(ENCODE_BATCH)])


def scaling_factor(network: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Return the factor that gives latents unit standard deviation, rounded for the config."""
    return round(1 / encoded(network, pictures).std().item(), 5)
