"""Draws the parameters of scenes: what stands where, how it is lit and seen from where.

Every image has a random stream of its own, keyed by (name, seed, index), from which a fixed
number of uniforms is taken. All choices are arithmetic on these uniforms, so any image can be
drawn alone and looks the same in any company.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from projgan.errors import UserError, unknown

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Shapes in their own coordinates fill [-1, 1] on each axis; an object of radius r is scaled by
# r times these (horizontal, vertical) factors and rests on the floor.
SHAPES: dict[str, tuple[float, float]] = {
    "sphere": (1.0, 1.0),
    "cube": (0.8, 0.8),
    "cylinder": (0.85, 0.85),
    "cone": (1.0, 1.1),
    "pyramid": (0.9, 0.95),
    "egg": (0.66, 1.1),
}
CLEVR_SHAPES = 3  # the first three of SHAPES

# CLEVR's eight object colours, sRGB.
COLOURS: dict[str, tuple[int, int, int]] = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
SIZES = ("small", "medium", "large")
MATERIALS = ("matte", "shiny")
FLOORS = ("plain", "checkered", "striped")
MAX_OBJECTS = 4

_DRAWS = 288  # uniforms taken per image; drawing more than this is a programming error
_TRIES = 24  # candidate places per object; one that fits nowhere is left out


@dataclass(frozen=True)
class Scenes:
    """Parameters of N scenes with up to K objects each (arrays lead with N).

    Lengths are in units of about one large object's radius; x and y span the floor, z is up.
    Colours are linear light. Slot 0 is always present; in "pretrain" it is the main object.
    """

    present: Bools  # [N, K]
    shape: Ints  # [N, K] index into SHAPES
    colour: Ints  # [N, K] index into COLOURS
    shiny: Ints  # [N, K] index into MATERIALS
    size: Ints  # [N, K] index into SIZES
    place: Floats  # [N, K, 2] where the object stands
    scale: Floats  # [N, K, 2] half extents, horizontal and vertical
    turn: Floats  # [N, K, 2] cosine and sine of the rotation about z
    albedo: Floats  # [N, K, 3]
    eye: Floats  # [N, 3]
    axes: Floats  # [N, 3, 3] rows: right, up, forward (right and up scaled by the field of view)
    light: Floats  # [N, 3] position
    light_radius: Floats  # [N]
    light_colour: Floats  # [N, 3]
    ambient: Floats  # [N]
    floor: Ints  # [N] index into FLOORS
    floor_colour: Ints  # [N] index into COLOURS
    floor_albedo: Floats  # [N, 2, 3] the pattern's two colours (equal when plain)
    floor_frame: Floats  # [N, 3] cosine and sine of the pattern's rotation, tiles per unit
    sky: Floats  # [N, 3] backdrop

    def __len__(self) -> int:
        return len(self.eye)

    def part(self, start: int, stop: int) -> Scenes:
        """Scenes start to stop (views, no copies)."""
        return Scenes(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})


class _Dice:
    """Hands out the uniforms of N images, column by column."""

    def __init__(self, name: str, seed: int, indices: Ints) -> None:
        digest = hashlib.blake2b(f"{name}/{seed}".encode(), digest_size=8).digest()
        stream = int.from_bytes(digest, "little")
        self._table = np.empty((len(indices), _DRAWS))
        for row, index in zip(self._table, indices.tolist(), strict=True):
            bits = np.random.Philox(key=np.array([stream, index], dtype=np.uint64))
            np.random.Generator(bits).random(out=row)
        self._next = 0

    def uniform(self, low: float, high: float, *shape: int) -> Doubles:
        count = math.prod(shape)
        taken = self._table[:, self._next : self._next + count]
        self._next += count
        return (low + (high - low) * taken).reshape(len(taken), *shape)

    def choice(self, options: int, *shape: int) -> Ints:
        return self.uniform(0, options, *shape).astype(np.int64)


def check_name(name: str) -> None:
    """Refuses an unknown distribution's name."""
    if name not in _DRAW:
        raise UserError(unknown("scene distribution", name, _DRAW))


def draw(name: str, seed: int, indices: Sequence[int] | NDArray[np.integer]) -> Scenes:
    """Parameters of the images with these indices (each at least 0)."""
    check_name(name)
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    if wanted.size and wanted.min() < 0:
        raise UserError(f"Image index {wanted.min()} is negative; indices count from 0")
    return _DRAW[name](_Dice(name, seed, wanted))


def _draw_clevr(dice: _Dice) -> Scenes:
    """After CLEVR: one to four spheres, cubes, cylinders on a grey floor."""
    wide = (MAX_OBJECTS,)
    count = 1 + dice.choice(MAX_OBJECTS, 1)
    shape, colour = dice.choice(CLEVR_SHAPES, *wide), dice.choice(len(COLOURS), *wide)
    shiny, large = dice.choice(2, *wide), dice.choice(2, *wide)
    radius = np.where(large == 1, 1.15, 0.72)
    camera = _Camera(dice, distance=(8.3, 9.3), azimuth=(-0.25, 0.25), elevation=(0.42, 0.62))
    place, fits = _place(dice, camera, radius, across=2.2, near=1.7, far=2.8, main=0.8)
    turn = dice.uniform(0, 2 * math.pi, *wide)
    light = _light(dice, camera, azimuth=(-1.3, -0.5), elevation=(0.75, 1.05), distance=(8.0, 10.0))
    strength = dice.uniform(1.0, 1.2, 1)
    grey = dice.uniform(0.36, 0.42, 1, 1)
    return _assemble(
        present=fits & (np.arange(MAX_OBJECTS) < count),
        shape=shape, colour=colour, shiny=shiny, size=2 * large,
        radius=radius, place=place, angle=turn,
        srgb=_PALETTE[colour],
        camera=camera, light=light, light_radius=np.full(len(light), 0.7),
        light_colour=strength * np.array([1.0, 0.98, 0.95]),
        ambient=np.full(len(light), 0.36),
        floor=np.zeros(len(light), np.int64),
        floor_colour=np.zeros(len(light), np.int64),
        floor_albedo=np.broadcast_to(grey, (len(light), 2, 3)),
        floor_frame=np.tile([1.0, 0.0, 1.0], (len(light), 1)),
        sky=np.repeat(dice.uniform(0.60, 0.68, 1), 3, axis=1),
    )  # fmt: skip


def _draw_pretrain(dice: _Dice) -> Scenes:
    """A main object that decides the class, small ones beside it, floors and light that vary."""
    wide = (MAX_OBJECTS,)
    count = 1 + dice.choice(MAX_OBJECTS, 1)
    shape, colour = dice.choice(len(SHAPES), *wide), dice.choice(len(COLOURS), *wide)
    shiny = dice.choice(2, *wide)
    # The main object is medium or large, the others are small, so that it is never in doubt.
    size = np.zeros_like(shape)
    size[:, 0] = 1 + dice.choice(2, 1)[:, 0]
    radius = np.array([0.6, 1.1, 1.5])[size] * dice.uniform(0.88, 1.12, *wide)
    camera = _Camera(
        dice, distance=(7.6, 10.0), azimuth=(-math.pi, math.pi), elevation=(0.28, 0.85)
    )
    place, fits = _place(dice, camera, radius, across=2.3, near=1.6, far=3.0, main=0.55)
    turn = dice.uniform(0, 2 * math.pi, *wide)
    light = _light(dice, camera, azimuth=(-2.2, 2.2), elevation=(0.55, 1.3), distance=(7.0, 12.0))
    strength, warmth = dice.uniform(0.75, 1.35, 1), dice.uniform(-1, 1, 1)
    srgb = _PALETTE[colour] * dice.uniform(0.85, 1.15, *wide, 1)
    srgb = np.clip(srgb + dice.uniform(-0.035, 0.035, *wide, 3), 0.02, 1.0)
    # The floor never has the main object's colour.
    floor_colour = (colour[:, 0] + 1 + dice.choice(len(COLOURS) - 1, 1)[:, 0]) % len(COLOURS)
    floor = dice.choice(len(FLOORS), 1)[:, 0]
    grey = dice.uniform(0.35, 0.75, 1)
    first = 0.5 * _PALETTE[floor_colour] + 0.5 * grey
    second = first + np.where(grey < 0.55, 1.0, -1.0) * dice.uniform(0.13, 0.25, 1)
    second = np.where((floor == 0)[:, None], first, np.clip(second, 0.05, 1.0))
    cosine, sine = _cos_sin(dice.uniform(0, math.pi, 1)[:, 0])
    return _assemble(
        present=fits & (np.arange(MAX_OBJECTS) < count),
        shape=shape, colour=colour, shiny=shiny, size=size,
        radius=radius, place=place, angle=turn, srgb=srgb,
        camera=camera, light=light, light_radius=dice.uniform(0.2, 1.2, 1)[:, 0],
        light_colour=strength * (1.0 + warmth * np.array([0.08, 0.0, -0.08])),
        ambient=dice.uniform(0.25, 0.5, 1)[:, 0],
        floor=floor, floor_colour=floor_colour,
        floor_albedo=np.stack([first, second], axis=1) ** 2,
        floor_frame=np.stack([cosine, sine, dice.uniform(0.55, 0.9, 1)[:, 0]], axis=1),
        sky=(dice.uniform(0.3, 0.9, 1) + dice.uniform(-0.15, 0.15, 3)) ** 2,
    )  # fmt: skip


_DRAW = {"clevr": _draw_clevr, "pretrain": _draw_pretrain}
_PALETTE = np.array(list(COLOURS.values())) / 255.0
_EXTENT = np.array(list(SHAPES.values()))


def _cos_sin(angle: Doubles) -> tuple[Doubles, Doubles]:
    # The C library's functions one by one: numpy's vectorised ones may round differently with
    # the position in the array, and an image must not depend on its neighbours.
    flat = angle.ravel().tolist()
    cosine = np.array([math.cos(a) for a in flat]).reshape(angle.shape)
    sine = np.array([math.sin(a) for a in flat]).reshape(angle.shape)
    return cosine, sine


class _Camera:
    """Cameras on a spherical shell, all looking at a point just above the floor's origin."""

    def __init__(
        self,
        dice: _Dice,
        distance: tuple[float, float],
        azimuth: tuple[float, float],
        elevation: tuple[float, float],
    ) -> None:
        self.distance = dice.uniform(*distance, 1)[:, 0]
        self.azimuth = dice.uniform(*azimuth, 1)[:, 0]
        cos_a, sin_a = _cos_sin(self.azimuth)
        cos_e, sin_e = _cos_sin(dice.uniform(*elevation, 1)[:, 0])
        self.sin_elevation = sin_e
        zero = np.zeros_like(cos_a)
        # Across and away span the floor as seen from the camera.
        self.across = np.stack([cos_a, sin_a], axis=1)
        self.away = np.stack([-sin_a, cos_a], axis=1)
        backward = np.stack([sin_a * cos_e, -cos_a * cos_e, sin_e], axis=1)
        target = np.stack([*dice.uniform(-0.25, 0.25, 2).T, dice.uniform(0.3, 0.6, 1)[:, 0]], 1)
        self.eye = target + self.distance[:, None] * backward
        right = np.stack([cos_a, sin_a, zero], axis=1)
        up = np.stack([-sin_a * sin_e, cos_a * sin_e, cos_e], axis=1)
        half_view = 0.37  # tangent of half the field of view
        self.axes = np.stack([half_view * right, half_view * up, -backward], axis=1)


def _place(
    dice: _Dice,
    camera: _Camera,
    radius: Doubles,
    across: float,
    near: float,
    far: float,
    main: float,
) -> tuple[Doubles, Bools]:
    """Places for K objects that neither touch nor hide each other, and which of them fit.

    Candidates lie in a trapezium that the camera sees; the first that keeps its distance from
    all objects before it is taken. The first object keeps to the share `main` of the region.
    """
    count, slots = radius.shape
    spot = np.zeros((count, slots, 2))  # across, away
    fits = np.ones((count, slots), bool)
    for k in range(slots):
        share = main if k == 0 else 1.0
        away = dice.uniform(-near * share, far * share, _TRIES)
        side = dice.uniform(-across * share, across * share, _TRIES)
        side *= 1.0 + away / camera.distance[:, None]  # perspective
        good = np.ones((count, _TRIES), bool)
        for j in range(k):
            reach = (radius[:, j] + radius[:, k])[:, None]
            dx, dy = side - spot[:, j, :1], away - spot[:, j, 1:]
            apart = dx * dx + dy * dy > (1.05 * reach + 0.1) ** 2
            seen_dy = dy * camera.sin_elevation[:, None]
            unhidden = dx * dx + seen_dy * seen_dy > (0.75 * reach) ** 2
            good &= (apart & unhidden) | ~fits[:, j : j + 1]
        first = good.argmax(axis=1)[:, None]
        fits[:, k] = good.any(axis=1)
        spot[:, k, 0] = np.take_along_axis(side, first, 1)[:, 0]
        spot[:, k, 1] = np.take_along_axis(away, first, 1)[:, 0]
    return spot[..., :1] * camera.across[:, None] + spot[..., 1:] * camera.away[:, None], fits


def _light(
    dice: _Dice,
    camera: _Camera,
    azimuth: tuple[float, float],
    elevation: tuple[float, float],
    distance: tuple[float, float],
) -> Doubles:
    """Light positions; azimuth 0 is behind the camera."""
    cos_a, sin_a = _cos_sin(camera.azimuth + dice.uniform(*azimuth, 1)[:, 0])
    cos_e, sin_e = _cos_sin(dice.uniform(*elevation, 1)[:, 0])
    direction = np.stack([sin_a * cos_e, -cos_a * cos_e, sin_e], axis=1)
    return direction * dice.uniform(*distance, 1)


def _assemble(
    *,
    present: Bools,
    shape: Ints,
    colour: Ints,
    shiny: Ints,
    size: Ints,
    radius: Doubles,
    place: Doubles,
    angle: Doubles,
    srgb: Doubles,
    camera: _Camera,
    light: Doubles,
    light_radius: Doubles,
    light_colour: Doubles,
    ambient: Doubles,
    floor: Ints,
    floor_colour: Ints,
    floor_albedo: Doubles,
    floor_frame: Doubles,
    sky: Doubles,
) -> Scenes:
    def f32(values: Doubles) -> Floats:
        return np.ascontiguousarray(values, dtype=np.float32)

    return Scenes(
        present=present,
        shape=shape,
        colour=colour,
        shiny=shiny,
        size=size,
        place=f32(place),
        scale=f32(radius[..., None] * _EXTENT[shape]),
        turn=f32(np.stack(_cos_sin(angle), axis=-1)),
        albedo=f32(srgb**2),
        eye=f32(camera.eye),
        axes=f32(camera.axes),
        light=f32(light),
        light_radius=f32(light_radius),
        light_colour=f32(light_colour),
        ambient=f32(ambient),
        floor=floor,
        floor_colour=floor_colour,
        floor_albedo=f32(floor_albedo),
        floor_frame=f32(floor_frame),
        sky=f32(sky),
    )
