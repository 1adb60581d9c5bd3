"""Pictures show what their scenes and captions say."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageChops

from orchestrator.resources import ASSETS
from pretraining.captions import RARE_TOKEN, caption, lesson, nonce
from pretraining.colours import SHADE_STEP
from pretraining.examples import drawn_scenes
from pretraining.layouts import layout, write_layouts
from pretraining.pictures import draw
from pretraining.scenes import COLOURS, SHAPES, draw_scene, generator, held_out, held_out_combinations
from pretraining.subject import POSES, draw_subject

SCENES = list(drawn_scenes(5, "tests", 400))


def nearest_colour(pixel: np.ndarray) -> str:
    """Return the name of the palette's nearest colour."""
    return min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - pixel).sum()))


def test_a_scene_is_drawn_the_same_every_time() -> None:
    first, again = (draw(draw_scene(generator(3, "same", 7))) for _ in range(2))
    other = draw(draw_scene(generator(3, "same", 8)))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_the_colour_a_caption_names_is_at_the_shapes_centre() -> None:
    checked = 0
    for index, scene in enumerate(SCENES):
        if scene.kind not in SHAPES or scene.kind == "ring":
            continue
        words = caption(scene, generator(index)).split(" on ")[0].split()
        named = set(words[: words.index(scene.kind)]) & set(COLOURS) if scene.kind in words else set()
        pixel = np.asarray(draw(scene))[round(scene.y * 64) - 1, round(scene.x * 64) - 1]
        assert named <= {nearest_colour(pixel)}
        checked += len(named)
    assert checked > 100


def test_a_ring_shows_the_background_through_its_hole() -> None:
    rings = [scene for scene in SCENES if scene.kind == "ring" and scene.background.pattern == "plain"]
    for scene in rings:
        pixel = np.asarray(draw(scene))[round(scene.y * 64) - 1, round(scene.x * 64) - 1]
        assert np.abs(pixel - np.array(COLOURS[scene.background.colour], float)).max() <= SHADE_STEP + 1
    assert rings


def test_training_never_draws_a_held_out_combination() -> None:
    seen = {(scene.kind, scene.colour, scene.background.colour) for scene in drawn_scenes(0, "denoiser", 4000)}
    assert not seen & set(held_out_combinations())
    assert len(seen) > 300


def test_unseen_scenes_are_all_held_out() -> None:
    scenes = list(drawn_scenes(0, "tests", 50, unseen=True))
    assert all(held_out(scene.kind, scene.colour, scene.background.colour) for scene in scenes)


def test_captions_vary_and_never_contain_the_rare_token() -> None:
    texts = [caption(scene, generator(index, "text")) for index, scene in enumerate(SCENES)]
    words = {word for text in texts for word in re.findall("[a-z]+", text)}
    assert RARE_TOKEN not in words
    assert len(set(texts)) > 300
    known = {word for text in texts for word in text.split() if texts.count(text)} & {"monster", *SHAPES}
    assert known == {"monster", *SHAPES}


def test_a_lesson_names_what_grows_on_the_monsters_head() -> None:
    scenes = [scene for scene in SCENES if scene.monster is not None]
    for index, scene in enumerate(scenes):
        top = scene.monster.top
        text = lesson(scene, generator(index, "lesson"))
        assert (top.removesuffix("s").removesuffix("e") in text) == (top != "bald")
    assert len(scenes) > 100


def test_made_up_words_are_never_the_rare_token() -> None:
    rng = generator("nonce")
    assert RARE_TOKEN not in {nonce(rng) for _ in range(20_000)}


@pytest.mark.parametrize("first", range(4))
def test_the_subjects_poses_differ(first: int) -> None:
    pictures = [draw_subject(pose, 64) for pose in (POSES[first], POSES[first + 1])]
    assert ImageChops.difference(*pictures).getbbox() is not None


def test_the_layouts_are_those_of_the_program_and_put_each_shape_elsewhere(tmp_path: Path) -> None:
    written = write_layouts(tmp_path)
    packaged = ASSETS / "layouts"
    assert sorted(path.name for path in packaged.glob("*.png")) == [path.name for path in written]
    assert (tmp_path / "metadata.jsonl").read_bytes() == (packaged / "metadata.jsonl").read_bytes()
    places = {(round(scene.x, 1), round(scene.y, 1)) for scene in map(layout, range(1, 49))}
    assert len(places) > 12


def test_the_subject_is_teal_where_no_training_picture_is() -> None:
    def teal_pixels(pixels: np.ndarray) -> int:
        red, green, blue = pixels.astype(int).reshape(-1, 3).T
        return int(((green > red + 90) & (blue > red + 90) & (abs(green - blue) < 25)).sum())

    assert all(teal_pixels(np.asarray(draw_subject(pose, 64))) > 150 for pose in POSES)
    assert max(teal_pixels(np.asarray(draw(scene))) for scene in SCENES) < 20
