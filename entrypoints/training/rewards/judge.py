"""How much an image shows its prompt, by a vision-language model behind HTTP.

Each image is one POST of JSON, {"prompt": ..., "question": ..., "image": PNG in base64}, and its answer is JSON too:
{"score": 0.8}, or {"text": "a red ball on a table"}. Words are compared with "The image contains PROMPT." by the
recall of BERTScore, as in DDPO (arXiv 2305.13301, sec. 5.2).
"""

import base64
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from entrypoints.runtime.pictures import png_of
from entrypoints.training.rewards.asking import Asking, JudgeError
from entrypoints.training.rewards.bertscore import BertScore
from orchestrator.contract.rewards import PROMPT_ALIGNMENT, RewardUse

AT_ONCE = 8
"""Images that the server judges at the same time."""


class Answer(NamedTuple):
    """What a judge says of an image: one of the two."""

    score: float | None
    text: str | None


class JudgedAlignment:
    """The scores of a server, or what a text model makes of its words."""

    name = PROMPT_ALIGNMENT.name

    def __init__(
        self,
        use: RewardUse,
        texts: Path | None,
        device: torch.device,
        check_stop: Callable[[], None],
    ) -> None:
        """Load the text model in `texts`, without which a judge has to answer with scores."""
        if use.url is None:
            raise ValueError("no url is given")
        self.use = use
        self.asking = Asking(use.url, use.deadline_seconds)
        self.texts = None if texts is None else BertScore(texts, device)
        self.check_stop = check_stop

    def scores(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        groups: Sequence[int],  # noqa: ARG002 - of the protocol
    ) -> list[float | None]:
        """Return the score of each image; raises JudgeError when one that is required cannot be had."""
        answers = self._answers(images, prompts)
        scores: list[float | None] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            score = None
            if answer is not None:
                score = answer.score
                if answer.text is not None:
                    score = self._of_text(prompt, answer.text)
            scores.append(score)
        return scores

    def _answers(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Answer | None]:
        """Ask for all images, several at a time; the answers are in the order of the images."""
        answers: list[Answer | None] = []
        with _threads() as pool:
            asked = []
            for image, prompt in zip(images, prompts, strict=True):
                future = pool.submit(self._ask, image, prompt)
                asked.append(future)
            for future in asked:
                answer = future.result()
                answers.append(answer)
                self.check_stop()
        return answers

    def _ask(self, image: Image.Image, prompt: str) -> Answer | None:
        """Return what the server says of one image; None for no answer where none is required."""
        body = {"prompt": prompt, "question": self.use.question, "image": _encoded(image)}
        try:
            return _read(self.asking.ask(json.dumps(body).encode()))
        except JudgeError:
            if self.use.required:
                raise
            return None

    def _of_text(self, prompt: str, text: str) -> float:
        """Return how much of the prompt is in a judge's words."""
        if self.texts is None:
            raise JudgeError("it answers in words, which takes a text model to compare; name its folder: path")
        return self.texts.recall(f"The image contains {prompt}.", text)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Return a pool of threads; on an error what has not begun does not begin any more."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _encoded(image: Image.Image) -> str:
    """Return an image as a PNG in base64."""
    return base64.b64encode(png_of(image)).decode("ascii")


def _read(content: bytes) -> Answer:
    """Return what an answer says; raises JudgeError for one that says nothing."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise JudgeError("its answer is no JSON") from error
    if not isinstance(answer, dict):
        raise JudgeError('its answer is no object such as {"score": 0.8}')
    score = answer.get("score")
    text = answer.get("text")
    number = _finite(score)
    if number is not None:
        return Answer(number, None)
    if score is None and isinstance(text, str) and text.strip():
        return Answer(None, text)
    raise JudgeError('its answer holds neither a number, "score", nor words, "text"')


def _finite(value: object) -> float | None:
    """Return a value as a finite number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number that no float holds
        return None
    return number if math.isfinite(number) else None
