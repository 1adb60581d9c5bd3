"""Noise as DDPM adds it (arXiv 2006.11239): what the network is asked for, and how samples are weighed."""

from torch import Tensor


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Diffuse latents to their timestep: sqrt(a) x + sqrt(1 - a) e (DDPM, arXiv 2006.11239, eq. 4).

    latents, noise: (batch, channels, height, width); alphas_cumprod: (batch,), a of each sample's timestep.
    """
    signal = alphas_cumprod.view(-1, 1, 1, 1)
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise


def training_target(prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Return what the network should predict: the noise, or v = sqrt(a) e - sqrt(1 - a) x (arXiv 2202.00512, app. D).

    Shapes as in `add_noise`; raises ValueError for a prediction type that is neither "epsilon" nor "v_prediction".
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type != "v_prediction":
        raise ValueError(f'cannot train for prediction type "{prediction_type}"')
    signal = alphas_cumprod.view(-1, 1, 1, 1)
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def min_snr_weights(prediction_type: str, alphas_cumprod: Tensor, gamma: float) -> Tensor:
    """Return Min-SNR-gamma weights (arXiv 2303.09556, sec. 3.4), shape (batch,).

    min(snr, gamma) is meant for the loss on x; a loss on the noise is that divided by snr, one on v by snr + 1. With
    zero terminal SNR (arXiv 2305.08891) snr reaches 0, where the weight for the noise tends to 1.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)
