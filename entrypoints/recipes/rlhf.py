"""Reinforcement learning from rewards: DDPO (arXiv 2305.13301), DiffusionNFT (2509.16117), Diffusion-DPO (2311.12908)."""

from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.ddim import StochasticDdim
from entrypoints.models.ddpm import Ddpm
from entrypoints.models.sampling import Drawing, require_steps
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.loop import fit
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.reinforcement import ddpo
from entrypoints.training.reinforcement.objective import Algorithm, DdpoAlgorithm, NftAlgorithm, Reinforcement
from entrypoints.training.reinforcement.prompts import split_prompts
from entrypoints.training.reinforcement.rollouts import FastSampler, PathSampler, drop_rollouts
from entrypoints.training.reinforcement.watch import RewardWatch
from entrypoints.training.rewards.rewards import open_rewards
from entrypoints.training.run import Run
from orchestrator.contract.recipes.rlhf import DDPO, Rlhf


def train(recipe: Rlhf, run: Run) -> None:
    """Train the adapter, round by round, to draw images that score higher."""
    base = run.load_base_model()
    prompts = split_prompts(recipe, run)
    tuner = low_rank_tuner(recipe, base)
    rewards = open_rewards(recipe.rewards, run, base)
    objective = Reinforcement(run, base, recipe, tuner, rewards, prompts.trained)
    objective.algorithm = algorithm_of(recipe, base, objective)
    watch = RewardWatch(run, base, recipe, objective, prompts.held_out)
    fit(run, base, recipe, tuner, objective, watch.look)
    drop_rollouts(run.environment.checkpoints)
    asked = prompts.held_out[: recipe.evaluation_prompts]
    evaluate_and_publish(run, base, tuner, [], [recipe.judged_by_text(prompt) for prompt in asked])


def algorithm_of(recipe: Rlhf, base: BaseModel, objective: Reinforcement) -> Algorithm:
    """Return what draws and what learns, as the recipe names it."""
    if recipe.algorithm == DDPO:
        policy = ddpo.Policy(base, ddim_of(recipe, base), recipe.guidance_scale)
        return DdpoAlgorithm(objective, policy, PathSampler(policy, recipe.resolution))
    require_steps(base, recipe.sampler_steps, "-s sampler_steps=")
    drawing = Drawing(recipe.sampler_steps, recipe.guidance_scale, recipe.resolution)
    return NftAlgorithm(objective, FastSampler(base, drawing))


def ddim_of(recipe: Rlhf, base: BaseModel) -> StochasticDdim:
    """Return the sampler of ddpo; raises TrainingError("recipe") for a model whose noise is not DDPM's."""
    process = base.process
    if not isinstance(process, Ddpm):
        raise TrainingError(
            "recipe",
            f"ddpo needs a model with DDPM's noise, and that of {base.family.title} is another.",
            "Submit again with -s algorithm=nft.",
        )
    return StochasticDdim.of_scheduler(process, base.pipeline.scheduler.config, recipe.sampler_steps, recipe.eta)
