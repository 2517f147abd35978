"""Rendered scenes: the same image in any company, and images that show what they say."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from projgan import scenes
from projgan.errors import UserError
from projgan.scenes import layout, tracer
from projgan.scenes.layout import COLOURS, SHAPES, Scenes
from projgan.scenes.solids import SOLIDS
from projgan.scenes.tracer import trace

NAMES = ("clevr", "pretrain")


# An image depends on (name, seed, index, resolution) and on nothing else.


@pytest.mark.parametrize("name", NAMES)
def test_image_is_the_same_in_any_batch_order_and_thread_count(name: str) -> None:
    drawn = layout.draw(name, 3, range(21))
    together = trace(drawn, 32, threads=3)
    np.testing.assert_array_equal(trace(drawn, 32, threads=1), together)
    for index in (0, 7, 20):
        np.testing.assert_array_equal(scenes.render(name, 3, [index], 32)[0], together[index])
    np.testing.assert_array_equal(scenes.render(name, 3, np.array([9, 2]), 32), together[[9, 2]])


@pytest.mark.parametrize("rays", [4 * 64 * 8, 4 * 64 * 64 * 3])
def test_image_is_the_same_however_the_work_is_cut(
    rays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = layout.draw("pretrain", 0, range(5))
    usual = trace(drawn, 64, threads=1)
    monkeypatch.setattr(tracer, "_CHUNK_RAYS", rays)
    np.testing.assert_array_equal(trace(drawn, 64, threads=1), usual)


def test_seeds_names_and_indices_give_different_images() -> None:
    images = np.concatenate(
        [scenes.render(name, seed, range(8), 32) for name in NAMES for seed in (0, 1)]
    )
    assert len({image.tobytes() for image in images}) == len(images) == 32


# Mean levels of the four quarters of image 0 of seed 0, per channel. Whoever changes the pixels
# sees this fail: raise scenes.VERSION and store the new numbers.
GOLDEN = {
    "clevr": [
        [[174.3, 143.2], [176.1, 155.3]],
        [[172.2, 129.8], [177.7, 157.2]],
        [[161.7, 161.0], [172.6, 152.4]],
    ],
    "pretrain": [
        [[159.9, 155.4], [184.5, 192.2]],
        [[106.9, 112.6], [106.4, 128.3]],
        [[109.5, 115.1], [95.9, 88.4]],
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_those_of_this_version(name: str) -> None:
    assert scenes.VERSION == 1
    image = scenes.render(name, 0, [0], 32)[0].astype(np.float64)
    blocks = image.reshape(3, 2, 16, 2, 16).mean(axis=(2, 4))
    np.testing.assert_allclose(blocks, GOLDEN[name], atol=1.0)


# Pictures show what they should.


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_resolutions_show_the_same_picture(resolution: int) -> None:
    image = scenes.render("pretrain", 0, [5], resolution)
    assert image.shape == (1, 3, resolution, resolution)
    assert image.dtype == np.uint8
    step = resolution // 16
    coarse = image.reshape(3, 16, step, 16, step).mean(axis=(2, 4))
    small = scenes.render("pretrain", 0, [5], 32).reshape(3, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.abs(coarse - small).mean() < 2.0


def test_objects_stand_out_in_every_image() -> None:
    drawn = layout.draw("pretrain", 1, range(64))
    empty = dataclasses.replace(drawn, present=np.zeros_like(drawn.present))
    change = np.abs(trace(drawn, 32, 1).astype(int) - trace(empty, 32, 1)).max(axis=1) > 20
    assert (change.mean(axis=(1, 2)) > 0.03).all()


def _one_sphere(place: tuple[float, float], radius: float) -> Scenes:
    """A matte red unit sphere in image 0 of "clevr", lit from the right."""
    drawn = layout.draw("clevr", 0, [0])
    arrays = {f.name: np.array(getattr(drawn, f.name)) for f in dataclasses.fields(drawn)}
    arrays["present"][:] = [True, False, False, False]
    arrays["shape"][:, 0], arrays["shiny"][:] = 0, 0
    arrays["place"][:, 0], arrays["scale"][:, 0] = place, radius
    arrays["albedo"][:, 0] = (0.8, 0.0, 0.0)
    arrays["light"][:] = (7.0, 0.0, 5.0)
    return Scenes(**arrays)


def _project(scene: Scenes, point: tuple[float, float, float], resolution: int) -> tuple[int, int]:
    """Row and column of the pixel that a point of the world falls into."""
    right, up, forward = scene.axes[0].astype(np.float64)
    offset = np.array(point) - scene.eye[0]
    depth = offset @ forward
    u, v = offset @ right / (right @ right) / depth, offset @ up / (up @ up) / depth
    return int((1 - v) / 2 * resolution), int((1 + u) / 2 * resolution)


def test_a_sphere_covers_the_pixels_that_geometry_says() -> None:
    radius, resolution = 1.2, 64
    scene = _one_sphere((0.3, 0.2), radius)
    image = trace(scene, resolution, 1)[0].astype(int)
    red = image[0] - image[1] > 40

    # A ray meets the sphere if its angle to the centre is less than asin(radius / distance).
    across = (np.arange(4 * resolution) + 0.5) / (2 * resolution) - 1
    right, up, forward = scene.axes[0].astype(np.float64)
    rays = forward + across[None, :, None] * right - across[:, None, None] * up
    centre = np.array([0.3, 0.2, radius]) - scene.eye[0]
    distance = np.linalg.norm(centre)
    angle = np.arccos(rays @ centre / distance / np.linalg.norm(rays, axis=-1))
    inside = (angle < np.arcsin(radius / distance)).reshape(resolution, 4, resolution, 4)
    covered, untouched = inside.all(axis=(1, 3)), ~inside.any(axis=(1, 3))
    assert covered.sum() > 100
    assert red[covered].all()
    assert not red[untouched].any()


def test_a_sphere_shades_the_floor_behind_it_and_only_there() -> None:
    scene = _one_sphere((0.0, 0.0), 1.0)
    bare = dataclasses.replace(scene, present=np.zeros_like(scene.present))
    image, floor = (trace(s, 64, 1)[0].mean(axis=0) for s in (scene, bare))
    # The line from the light (7, 0, 5) through the sphere's centre meets the floor here.
    shadow, mirrored = _project(scene, (-1.75, 0, 0), 64), _project(scene, (1.75, 0, 0), 64)
    assert image[shadow] < 0.75 * floor[shadow]
    assert image[mirrored] > 0.9 * floor[mirrored]


def test_the_nearer_object_hides_the_farther() -> None:
    scene = _one_sphere((0.0, 0.0), 1.0)
    behind = 1.5 * scene.axes[0, 2, :2]  # away from the camera
    for nearer in (0, 1):
        scene.present[:, 1], scene.shape[:, 1] = True, 0
        scene.place[0, nearer], scene.place[0, 1 - nearer] = -behind, behind
        scene.scale[0, :2] = 1.0
        scene.albedo[0, 1] = (0.0, 0.0, 0.8)
        row, column = _project(scene, (*(-behind), 1.0), 64)
        pixel = trace(scene, 64, 1)[0, :, row, column].astype(int)
        assert (pixel[0] - pixel[2] > 40) == (nearer == 0)
        assert (pixel[2] - pixel[0] > 40) == (nearer == 1)


# The solids, against their plain definitions.

INSIDE = {
    "sphere": lambda x, y, z: x * x + y * y + z * z < 1,
    "egg": lambda x, y, z: x * x + y * y + z * z < 1,
    "cube": lambda x, y, z: np.maximum(np.maximum(abs(x), abs(y)), abs(z)) < 1,
    "cylinder": lambda x, y, z: (x * x + y * y < 1) & (abs(z) < 1),
    "cone": lambda x, y, z: (np.sqrt(x * x + y * y) < (1 - z) / 2) & (abs(z) < 1),
    "pyramid": lambda x, y, z: (np.maximum(abs(x), abs(y)) < (1 - z) / 2) & (abs(z) < 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_enter_and_leave_solids_where_they_should(shape: str) -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 400))
    start *= 4 / np.linalg.norm(start, axis=0)
    ray = rng.uniform(-0.8, 0.8, (3, 400)) - start  # towards the solid
    origin, direction = tuple(start.astype(np.float32)), tuple(ray.astype(np.float32))
    intersect, normal = SOLIDS[shape]
    enter, leave = intersect(origin, direction)

    steps = (np.arange(2000) + 0.5) / 1000  # march along the rays
    within = INSIDE[shape](*(start[..., None] + ray[..., None] * steps))
    marched = within.any(axis=1)
    clear = np.abs(leave - enter) > 0.01  # not just grazing
    np.testing.assert_array_equal((enter < leave)[clear], marched[clear])
    hit = marched & clear
    assert hit.sum() > 50
    np.testing.assert_allclose(enter[hit], steps[within.argmax(axis=1)][hit], atol=2e-3)
    np.testing.assert_allclose(within.mean(axis=1)[hit] * 2, (leave - enter)[hit], atol=4e-3)

    point = (start + ray * enter)[:, hit & (start[2] > 0)]  # enters from above
    point = point[:, point[2] > -0.98]
    outward = np.stack(normal(tuple(point)))
    outward *= 1e-3 / np.linalg.norm(outward, axis=0)
    assert not INSIDE[shape](*(point + outward)).any()
    assert INSIDE[shape](*(point - outward)).mean() > 0.98  # edges may be cut


# Words.


def test_pretraining_labels_captions_and_classes_agree() -> None:
    numbers = scenes.labels("pretrain", 0, range(200))
    sentences = scenes.captions("pretrain", 0, range(200))
    assert numbers.dtype == np.int64
    classes = scenes.CLASSES["pretrain"]
    assert len(set(classes)) == len(SHAPES) * len(COLOURS) >= 20
    for number, sentence in zip(numbers, sentences, strict=True):
        assert re.match(rf"a (medium|large) (matte|shiny) {classes[number]}[, ]", sentence)
        assert re.search(r" on a \w+ ((checkered|striped) )?floor$", sentence)


def test_clevr_labels_count_the_objects_of_the_caption() -> None:
    numbers = scenes.labels("clevr", 0, range(200))
    for number, sentence in zip(numbers, scenes.captions("clevr", 0, range(200)), strict=True):
        assert len(re.findall(r"(sphere|cube|cylinder)", sentence)) == number + 1
        assert sentence.endswith(" on a gray floor")
    assert set(numbers) == set(range(len(scenes.CLASSES["clevr"])))


def test_every_class_occurs_about_equally_often() -> None:
    counts = np.bincount(scenes.labels("pretrain", 0, range(4800)), minlength=48)
    assert counts.min() > 60
    assert counts.max() < 145


def test_the_caption_s_colour_is_the_picture_s() -> None:
    drawn = layout.draw("pretrain", 2, range(48))
    images = trace(drawn, 64, 1).astype(int)
    checked = 0
    for n in np.flatnonzero(drawn.colour[:, 0] == list(COLOURS).index("red")):
        place, height = drawn.place[n, 0], float(drawn.scale[n, 0, 1])
        row, column = _project(drawn.part(n, n + 1), (*place, height), 64)
        red, green, blue = images[n, :, row, column]
        assert red > green + 30
        assert red > blue + 30
        checked += 1
    assert checked >= 3


# Refusals.


def test_unknown_names_resolutions_and_indices_are_refused() -> None:
    with pytest.raises(UserError, match="'clevr'"):
        scenes.render("clever", 0, [0], 32)
    with pytest.raises(UserError, match="'pretrain'"):
        scenes.captions("pretrian", 0, [0])
    with pytest.raises(UserError, match="48"):
        scenes.render("clevr", 0, [0], 48)
    with pytest.raises(UserError, match="-1"):
        scenes.labels("clevr", 0, [-1])


def test_no_indices_give_no_images() -> None:
    assert scenes.render("clevr", 0, [], 32).shape == (0, 3, 32, 32)
