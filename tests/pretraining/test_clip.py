"""The CLIP's lessons: right answers, hard negatives that training may see, words that stay apart."""

import torch

from pretraining.attributes import QUESTIONS, Questions, answers
from pretraining.clip import WIDTH, altered
from pretraining.examples import drawn_scenes
from pretraining.scenes import generator, held_out

SCENES = list(drawn_scenes(6, "clip-tests", 200))


def test_answers_name_what_the_scene_holds() -> None:
    names = list(QUESTIONS)
    for scene in SCENES:
        told = {name: QUESTIONS[name][number] for name, number in zip(names, answers(scene), strict=True)}
        assert (told["kind"], told["colour"], told["ground"]) == (scene.kind, scene.colour, scene.background.colour)
        assert (told["eyes"] == "absent") == (scene.monster is None)
        if scene.monster:
            assert (told["top"], told["eyes"]) == (scene.monster.top, str(scene.monster.eyes))


def test_questions_can_be_learnt_from_embeddings_that_hold_the_answers() -> None:
    torch.manual_seed(0)
    questions = Questions(WIDTH)
    embeddings = torch.zeros(len(SCENES), WIDTH)
    for row, scene in enumerate(SCENES):
        first = 0
        for number, choices in zip(answers(scene), QUESTIONS.values(), strict=True):
            embeddings[row, first + number] = 1
            first += len(choices)
    optimizer = torch.optim.Adam(questions.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        questions.loss(embeddings, SCENES).backward()
        optimizer.step()
    assert min(questions.right(embeddings, SCENES).values()) > 0.95


def test_hard_negatives_differ_and_are_never_held_out() -> None:
    others = [altered(scene, generator(index)) for index, scene in enumerate(SCENES)]
    assert not any(held_out(other.kind, other.colour, other.background.colour) for other in others)
    assert sum(other != scene for scene, other in zip(SCENES, others, strict=True)) > 150
