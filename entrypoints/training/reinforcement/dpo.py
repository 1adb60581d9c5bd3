"""Diffusion-DPO (arXiv 2311.12908): learn from pairs of pictures of which one is preferred, without a reward."""

from torch import Tensor, nn

from entrypoints.training.denoising import sample_means, squared_error


def preference_loss(
    prediction: Tensor,
    reference: Tensor,
    target: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Return -log sigmoid(-beta/2 (gain of the chosen - gain of the rejected)) (eq. 14), and who wins, (pairs,).

    The gain is how much larger the error is than that of the base model; beta stands for the paper's beta T. Its errors
    are means over the numbers of a latent, as in the settings that it is published with.

    Args:
        prediction: Of the chosen pictures, then of the rejected ones, (2 x pairs, channels, height, width).
        reference: The same of the base model, without gradient.
        target: What should be predicted.
        beta: Weight of staying near the base model.
    """
    errors = sample_means(squared_error(prediction, target, None))
    of_reference = sample_means(squared_error(reference, target, None))
    gain_of_chosen, gain_of_rejected = (errors - of_reference).chunk(2)
    inside = -0.5 * beta * (gain_of_chosen - gain_of_rejected)
    loss = -nn.functional.logsigmoid(inside).mean()
    return loss, (inside > 0).float()
