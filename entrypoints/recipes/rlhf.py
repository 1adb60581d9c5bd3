"""Reinforcement learning: DDPO (arXiv 2305.13301), DiffusionNFT (2509.16117), Diffusion-DPO (2311.12908)."""

from collections.abc import Sequence
from functools import partial

from entrypoints.adapters.low_rank import low_rank_tuner
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.ddim import StochasticDdim
from entrypoints.models.ddpm import Ddpm
from entrypoints.models.sampling import Drawing, require_steps
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.loop import fit
from entrypoints.training.publication import evaluate_and_publish
from entrypoints.training.reinforcement import ddpo
from entrypoints.training.reinforcement.algorithms import Algorithm, Ddpo, Nft
from entrypoints.training.reinforcement.drawing import RoundDrawer
from entrypoints.training.reinforcement.objective import Reinforcement
from entrypoints.training.reinforcement.preferences import PreferenceObjective, read_pairs
from entrypoints.training.reinforcement.prompts import split_prompts
from entrypoints.training.reinforcement.rollouts import FastSampler, PathSampler, drop_rollouts
from entrypoints.training.reinforcement.watch import RewardWatch
from entrypoints.training.rewards.opening import open_all
from entrypoints.training.run import Run
from entrypoints.training.validation import draw_validation
from orchestrator.contract.environment import TRAINING_CHANNEL
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipes.rlhf import DDPO, DPO, Rlhf


def train(recipe: Rlhf, run: Run) -> None:
    """Train the adapter: round by round, to draw images that score higher, or from stored pairs."""
    if recipe.algorithm == DPO:
        train_from_pairs(recipe, run)
        return
    base = run.load_base_model()
    prompts = split_prompts(recipe, run)
    tuner = low_rank_tuner(recipe, base)
    rewards = open_all(recipe, run, base)
    algorithm = algorithm_of(recipe, base, tuner)
    drawer = RoundDrawer(run, base, recipe, tuner, rewards, prompts.trained, algorithm.sampler)
    objective = Reinforcement(recipe, drawer, algorithm)
    watch = RewardWatch(run, base, recipe, objective, prompts.held_out)
    fit(run, base, recipe, tuner, objective, watch.look)
    drop_rollouts(run.environment.checkpoints)
    evaluate_and_publish(run, base, tuner, [], judged_by(recipe, prompts.held_out))


def train_from_pairs(recipe: Rlhf, run: Run) -> None:
    """Train the adapter to draw what is nearer to the chosen picture of each pair than to the rejected one."""
    base = run.load_base_model()
    images = run.training_images()
    pairs = read_pairs(run.environment.channel(TRAINING_CHANNEL), images)
    tuner = low_rank_tuner(recipe, base)
    objective = PreferenceObjective(base, recipe, tuner, images, pairs)
    validate = partial(draw_validation, run, base)
    fit(run, base, recipe, tuner, objective, validate)
    prompts = [pair.prompt for pair in pairs]
    evaluate_and_publish(run, base, tuner, [], judged_by(recipe, prompts))


def judged_by(recipe: Rlhf, prompts: Sequence[str]) -> list[EvaluationPrompt]:
    """Return the prompts of the contact sheet and of the closing figures: the first different ones of some."""
    found = []
    for prompt in dict.fromkeys(prompts):
        found.append(recipe.judged_by_text(prompt))
    return found[: recipe.evaluation_prompts]


def algorithm_of(recipe: Rlhf, base: BaseModel, tuner: Tuner) -> Algorithm:
    """Return what draws and what learns, as the recipe names it.

    Raises TrainingError("recipe") for a model that cannot be drawn with in this way.
    """
    if recipe.algorithm == DDPO:
        ddim = ddim_of(recipe, base)
        policy = ddpo.Policy(base, ddim, recipe.guidance_scale)
        path_sampler = PathSampler(policy, recipe.resolution)
        return Ddpo(recipe, policy, path_sampler, tuner)
    require_steps(base, recipe.sampler_steps, "-s sampler_steps=")
    drawing = Drawing(recipe.sampler_steps, recipe.guidance_scale, recipe.resolution)
    sampler = FastSampler(base, drawing)
    return Nft(recipe, base, sampler, tuner)


def ddim_of(recipe: Rlhf, base: BaseModel) -> StochasticDdim:
    """Return the sampler of ddpo; raises TrainingError("recipe") for a model whose noise is not DDPM's."""
    process = base.process
    if not isinstance(process, Ddpm):
        raise TrainingError(
            "recipe",
            f"ddpo needs a model with DDPM's noise, and that of {base.family.title} is another.",
            "Submit again with -s algorithm=nft.",
        )
    config = base.pipeline.scheduler.config
    return StochasticDdim.of_scheduler(process, config, recipe.sampler_steps, recipe.eta)
