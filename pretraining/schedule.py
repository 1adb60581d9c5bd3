"""The noise schedule that training and sampling share, and how the model samples."""

import diffusers
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler


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


SHARED = (
    "beta_start",
    "beta_end",
    "beta_schedule",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "timestep_spacing",
    "steps_offset",
    "clip_sample",  # not of DPM-Solver, but of DDIM, which others make of this configuration: it would clip latents
)


def sampler_config() -> dict[str, object]:
    """Return the scheduler that the model is exported with: DPM-Solver++ of second order (arXiv 2211.01095).

    Its 12 steps draw what DDIM draws in 25. Settings with their default values are left out: one of them is minus
    infinity, which JSON cannot say.
    """
    schedule = noise_schedule().config
    config: dict[str, object] = {
        "_class_name": DPMSolverMultistepScheduler.__name__,
        "_diffusers_version": diffusers.__version__,
    }
    for name in SHARED:
        config[name] = schedule[name]
    return config
