"""What is trained: rewards, algorithms, settings, seeds."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks.reinforcement.hidden import HIDDEN
from benchmarks.reinforcement.judging import GUIDANCE, HELD_OUT
from orchestrator.contract.recipe import to_hyperparameters
from orchestrator.contract.recipes.rlhf import Rlhf

COMPRESSIBILITY = "jpeg-compressibility"
INCOMPRESSIBILITY = "jpeg-incompressibility"
AESTHETIC = "aesthetic"
ALIGNMENT = "prompt-alignment"
COMPARED = (0, 1)
"""Seeds of the two trainings that are compared: one alone may be lucky."""


class Experiment(BaseModel):
    """One training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name of the row."""
    judged_by: str
    """The reward that it is to raise, as it is judged."""
    sign: int = 1
    """-1 where the job raises what is judged with its sign turned round."""
    settings: Mapping[str, Any] = {}
    """What differs from the defaults of the recipe."""
    labelled: bool = False
    """Whether simulated people give the reward."""
    pairs_of: str | None = None
    """The experiment from whose labels the pairs of dpo are taken."""
    seeds: tuple[int, ...] = (0,)
    """Of the training."""

    @property
    def guidance(self) -> float:
        """Classifier-free guidance with which it learns and is judged."""
        return float(self.settings.get("guidance_scale", GUIDANCE))

    def chosen(self, seed: int) -> dict[str, Any]:
        """Return the settings of a training."""
        common = {} if self.pairs_of else {"held_out_prompts": HELD_OUT}
        return {"evaluation_prompts": 0, **common, **self.settings, "seed": seed}

    def words(self, seed: int) -> list[str]:
        """Return the arguments of `submit`."""
        words = ["submit", "rlhf", "--name", self.job_name(seed)]
        if self.labelled:  # the benchmark is as long as its job
            words += ["--wait", "hold"]
        for field, value in self.chosen(seed).items():
            text = value if isinstance(value, str) else json.dumps(value)
            words += ["-s", f"{field}={text}"]
        return words

    def job_name(self, seed: int) -> str:
        """Return the name of the job and of its adapter."""
        letters = [letter if letter.isalnum() else "-" for letter in self.name.lower()]
        parts = [part for part in "".join(letters).split("-") if part]
        return f"{'-'.join(parts)}-{seed}"

    def recipe(self, seed: int) -> Rlhf:
        """Return the recipe with its defaults."""
        return Rlhf.model_validate(self.chosen(seed))

    def key(self, seed: int, base_model: str) -> str:
        """Return a hash of what its figures depend on but the code: `base_model` is the hash of its files."""
        own = self.model_dump(mode="json", exclude={"seeds"})
        facts = [base_model, to_hyperparameters(self.recipe(seed)), own, seed]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _raising(reward: str, judged_by: str, sign: int = 1, **settings: Any) -> Experiment:
    algorithm = settings.get("algorithm", "nft")
    others = [name for name in (INCOMPRESSIBILITY, AESTHETIC, ALIGNMENT) if name != judged_by]
    return Experiment(
        name=f"{reward}, {algorithm}",
        judged_by=judged_by,
        sign=sign,
        settings={"rewards": [reward], "evaluation_rewards": others, **settings},
    )


SMALLER = _raising(COMPRESSIBILITY, INCOMPRESSIBILITY, -1)
WATCHED = SMALLER.model_copy(
    update={
        "name": "jpeg-compressibility, nft, watched",
        "settings": {**SMALLER.settings, "validation_steps": SMALLER.recipe(0).steps_per_round},
    }
)
FRUGAL = _raising(
    COMPRESSIBILITY,
    INCOMPRESSIBILITY,
    -1,
    # A quarter of ddpo's queries: small rounds, and each image learned from eight times.
    rounds=24,
    prompts_per_round=2,
    updates=1,
    inner_epochs=8,
).model_copy(update={"name": "jpeg-compressibility, nft, a quarter", "seeds": COMPARED})
LARGER = _raising(INCOMPRESSIBILITY, INCOMPRESSIBILITY)
PRETTIER = _raising(AESTHETIC, AESTHETIC, rounds=40)
ALIGNED = _raising(
    ALIGNMENT,
    ALIGNMENT,
    # What guidance does is learned as well (DiffusionNFT draws without it), and an image takes half the time.
    guidance_scale=1.0,
    rounds=48,
    prompts_per_round=8,
    inner_epochs=1,
    learning_rate=2e-3,
)
DDPO = _raising(COMPRESSIBILITY, INCOMPRESSIBILITY, -1, algorithm="ddpo").model_copy(update={"seeds": COMPARED})
PEOPLE = Experiment(
    name="people, nft",
    judged_by=HIDDEN,
    settings={"rewards": ["human"], "evaluation_rewards": [INCOMPRESSIBILITY, AESTHETIC, ALIGNMENT]},
    labelled=True,
)
PAIRS = Experiment(
    name="people, dpo",
    judged_by=HIDDEN,
    settings={"algorithm": "dpo"},
    pairs_of=PEOPLE.name,
)
EXPERIMENTS = {one.name: one for one in (SMALLER, WATCHED, FRUGAL, LARGER, PRETTIER, ALIGNED, DDPO, PEOPLE, PAIRS)}
