"""The noise schedule that training and sampling share."""

from diffusers import DDIMScheduler


def noise_schedule() -> DDIMScheduler:
    """Return the schedule: velocities, zero terminal signal-to-noise ratio (Lin et al. 2023, arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,  # unused by trailing spacing; keeps the pipeline from warning
        set_alpha_to_one=True,
    )
