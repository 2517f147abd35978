"""A small ray tracer: scenes in, images out.

Each pixel averages 2 x 2 camera rays, and each of the four sends its one shadow ray to another
point of the light, which softens the shadows at no cost. Work is cut into chunks whose arrays fit
the processor's cache; the chunks are spread over threads. All arithmetic on pixels is elementwise
and rounded as IEEE says, so neither the cutting nor the threads can change an image.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from projgan.scenes.layout import SHAPES, Ints, Scenes
from projgan.scenes.solids import SOLIDS, Floats, Vectors

_CHUNK_RAYS = 16384
_MISS = np.float32(1e9)
_LIFT = np.float32(2e-3)  # shadow rays start this far above the surface
_SUBPIXELS = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
# Points of the light's disc that the four subpixels see, in radii.
_LIGHT_POINTS = ((-0.3, -0.9), (0.9, -0.3), (-0.9, 0.3), (0.3, 0.9))


def trace(scenes: Scenes, resolution: int, threads: int) -> NDArray[np.uint8]:
    """Renders the scenes.

    Returns:
        uint8 [N, 3, resolution, resolution], sRGB-like (gamma 2).
    """
    images = np.empty((len(scenes), 3, resolution, resolution), np.uint8)
    rows = min(resolution, max(1, _CHUNK_RAYS // (4 * resolution)))
    group = max(1, _CHUNK_RAYS // (4 * resolution * rows))

    def paint(chunk: tuple[int, int]) -> None:
        first, top = chunk
        part = slice(first, first + group)
        with np.errstate(all="ignore"):
            images[part, :, top : top + rows] = _render(
                scenes.part(first, first + group), resolution, top, rows
            )

    chunks = [(n, y) for n in range(0, len(scenes), group) for y in range(0, resolution, rows)]
    if threads == 1 or len(chunks) == 1:
        for chunk in chunks:
            paint(chunk)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(paint, chunks):  # the loop passes on exceptions
                pass
    return images


@dataclass(frozen=True)
class _Solids:
    """The G objects of one shape in a chunk: which image and slot, and how they stand."""

    shape: str
    image: Ints  # [G]
    slot: Ints  # [G]
    centre: Floats  # [G, 3, 1]
    inverse: Floats  # [G, 2, 1] 1 / scale
    cosine: Floats  # [G, 1]
    sine: Floats  # [G, 1]

    def inward(self, x: Floats, y: Floats, z: Floats) -> Vectors:
        """Directions [G, P] of the world in the objects' own coordinates."""
        flat, tall = self.inverse[:, 0], self.inverse[:, 1]
        c, s = self.cosine * flat, self.sine * flat
        return c * x + s * y, c * y - s * x, tall * z

    def inward_points(self, x: Floats, y: Floats, z: Floats) -> Vectors:
        """The same for points."""
        centre = self.centre
        return self.inward(x - centre[:, 0], y - centre[:, 1], z - centre[:, 2])

    def outward_normals(self, own: Vectors) -> Vectors:
        """Normals in the objects' own coordinates, of any length, as unit normals in the world."""
        flat, tall = self.inverse[:, 0], self.inverse[:, 1]  # normals scale by the inverse
        x, y, z = own[0] * flat, own[1] * flat, own[2] * tall
        return _unit(self.cosine * x - self.sine * y, self.sine * x + self.cosine * y, z)

    def pick(self, which: Ints) -> _Solids:
        """The objects with these numbers, in this order, repeats allowed."""
        arrays = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "shape"}
        return _Solids(shape=self.shape, **arrays)


def _solids(scenes: Scenes) -> list[_Solids]:
    groups = []
    for number, shape in enumerate(SHAPES):
        image, slot = np.nonzero(scenes.present & (scenes.shape == number))
        if len(image) == 0:
            continue
        place, scale, turn = (a[image, slot] for a in (scenes.place, scenes.scale, scenes.turn))
        centre = np.concatenate([place, scale[:, 1:]], axis=1)  # resting on the floor
        groups.append(
            _Solids(
                shape=shape,
                image=image,
                slot=slot,
                centre=centre[..., None],
                inverse=1 / scale[..., None],
                cosine=turn[:, :1],
                sine=turn[:, 1:],
            )
        )
    return groups


def _render(scenes: Scenes, resolution: int, top: int, rows: int) -> NDArray[np.uint8]:
    """Rows `top` to `top + rows` of all scenes: uint8 [N, 3, rows, resolution]."""
    count = len(scenes)
    groups = _solids(scenes)

    # Camera rays, unit length: [N, P] per component, P = 4 subpixels x rows x columns.
    right, down, light_u, light_v = _grid(resolution, top, rows)
    eye = scenes.eye[..., None]
    axes = scenes.axes[..., None]
    ray: list[Floats] = [
        axes[:, 0, i] * right - axes[:, 1, i] * down + axes[:, 2, i] for i in range(3)
    ]
    dx, dy, dz = _unit(*ray)

    # What each ray meets first: the floor, an object, or the backdrop.
    floor_at = np.where(dz < -1e-4, -eye[:, 2] / np.minimum(dz, -1e-4), _MISS)
    nearest = floor_at
    winner = np.full(dx.shape, -1, np.int8)
    for solids in groups:
        o = solids.inward_points(*(eye[solids.image, i] for i in range(3)))
        d = solids.inward(dx[solids.image], dy[solids.image], dz[solids.image])
        enter, leave = SOLIDS[solids.shape][0](o, d)
        enter = np.where((enter < leave) & (enter > 0), enter, _MISS)
        for image, slot, at in zip(solids.image, solids.slot, enter, strict=True):
            closer = at < nearest[image]
            nearest[image][closer] = at[closer]
            winner[image][closer] = slot
    reached = np.minimum(nearest, np.float32(200))
    x = eye[:, 0] + reached * dx
    y = eye[:, 1] + reached * dy
    z = eye[:, 2] + reached * dz
    on_object = winner >= 0
    z = np.where(on_object, z, 0)

    # Surface normals, colour and material where the rays land.
    nx, ny, nz = np.zeros_like(dx), np.zeros_like(dx), np.ones_like(dx)
    shiny = np.zeros(dx.shape, bool)
    paint = _floor_paint(scenes, x, y)
    for solids in groups:
        object_, p = np.nonzero(winner[solids.image] == solids.slot[:, None])
        here = solids.pick(object_)  # one entry per ray that lands on a solid of this shape
        n, k = here.image, here.slot
        point = here.inward_points(x[n, p, None], y[n, p, None], z[n, p, None])
        normal = here.outward_normals(SOLIDS[solids.shape][1](point))
        for field, values in zip((nx, ny, nz), normal, strict=True):
            field[n, p] = values[:, 0]
        shiny[n, p] = scenes.shiny[n, k] == 1
        for i in range(3):
            paint[i][n, p] = scenes.albedo[n, k, i]

    # Light: which part of it is seen from each point.
    light = scenes.light
    across = _unit(-light[:, 1], light[:, 0], np.zeros_like(light[:, 0]))
    spread = scenes.light_radius[:, None]
    lx: Floats = light[:, :1] + spread * (across[0][:, None] * light_u) - x
    ly: Floats = light[:, 1:2] + spread * (across[1][:, None] * light_u) - y
    lz: Floats = light[:, 2:] + spread * light_v - z
    sx, sy, sz = x + _LIFT * nx, y + _LIFT * ny, z + _LIFT * nz
    lit = np.ones(dx.shape, np.float32)
    for solids in groups:
        n = solids.image
        o = solids.inward_points(sx[n], sy[n], sz[n])
        d = solids.inward(lx[n], ly[n], lz[n])
        enter, leave = SOLIDS[solids.shape][0](o, d)
        free = ~((enter < leave) & (leave > 0))
        for image, unblocked in zip(n, free, strict=True):
            lit[image] *= unblocked
    lx, ly, lz = _unit(lx, ly, lz)
    facing = np.maximum(nx * lx + ny * ly + nz * lz, 0)

    # Matte: ambient light from above, the lamp, and a weak lamp at the camera.
    to_eye = -(nx * dx + ny * dy + nz * dz)
    ambient = scenes.ambient[:, None] * (np.float32(0.7) + np.float32(0.3) * nz)
    ambient = ambient * _openness(scenes, x, y, on_object)
    lamp = lit * facing
    fill = np.float32(0.15) * np.maximum(to_eye, 0) * on_object
    # Shiny: mirrored surroundings, and a highlight where the mirrored ray meets the lamp.
    rx, ry, rz = (d + 2 * to_eye * n for d, n in ((dx, nx), (dy, ny), (dz, nz)))
    gleam = np.maximum(rx * lx + ry * ly + rz * lz, 0)
    for _ in range(5):
        gleam = gleam * gleam  # to the 32nd power
    gleam = gleam * lit * shiny
    upward = np.clip(np.float32(0.5) + 3 * rz, 0, 1)
    glancing = 1 - np.clip(to_eye, 0, 1)
    mirror = shiny * (np.float32(0.5) + np.float32(0.4) * glancing * glancing * glancing)
    away = _smoothstep((reached - _eye_distance(scenes)) / 9)
    backdrop = np.where(on_object, 0, away)

    out = np.empty((count, 3, rows, resolution), np.uint8)
    for i in range(3):
        colour, sky = paint[i], scenes.sky[:, i, None]
        lamp_colour = scenes.light_colour[:, i, None]
        matte = colour * (ambient + fill + lamp * lamp_colour)
        ground = scenes.floor_albedo[:, 0, i, None] * np.float32(0.8)
        around = ground + (sky * np.float32(1.2) - ground) * upward
        tinted = around * (np.float32(0.1) + np.float32(1.3) * colour)
        value = matte + (tinted - matte) * mirror + np.float32(1.5) * gleam * lamp_colour
        value = value + (sky - value) * backdrop
        sub = np.clip(value, 0, 1).reshape(count, 4, rows, resolution)
        mean = (sub[:, 0] + sub[:, 1] + (sub[:, 2] + sub[:, 3])) / 4
        out[:, i] = (np.sqrt(mean) * 255 + np.float32(0.5)).astype(np.uint8)
    return out


def _grid(resolution: int, top: int, rows: int) -> tuple[Floats, Floats, Floats, Floats]:
    """For the P rays of a band: place in the image in [-1, 1], and the point of the light."""
    row = np.arange(top, top + rows)
    column = np.arange(resolution)
    right = np.empty((4, rows, resolution), np.float32)
    down, light_u, light_v = np.empty_like(right), np.empty_like(right), np.empty_like(right)
    for s, (sub_y, sub_x) in enumerate(_SUBPIXELS):
        right[s] = (column + sub_x) * (2 / resolution) - 1
        down[s] = ((row + sub_y) * (2 / resolution) - 1)[:, None]
        light_u[s], light_v[s] = _LIGHT_POINTS[s]
    return right.ravel(), down.ravel(), light_u.ravel(), light_v.ravel()


def _unit(x: Floats, y: Floats, z: Floats) -> Vectors:
    inverse = 1 / np.sqrt(np.maximum(x * x + y * y + z * z, np.float32(1e-20)))
    return x * inverse, y * inverse, z * inverse


def _smoothstep(t: Floats) -> Floats:
    t = np.clip(t, 0, 1)
    smooth: Floats = t * t * (3 - 2 * t)
    return smooth


def _eye_distance(scenes: Scenes) -> Floats:
    """Distance [N, 1] of the camera from the floor's origin."""
    x, y, z = scenes.eye.T[..., None]
    distance: Floats = np.sqrt(x * x + y * y + z * z)
    return distance


def _floor_paint(scenes: Scenes, x: Floats, y: Floats) -> list[Floats]:
    """The floor's albedo at floor points, per channel [N, P]."""
    frame = scenes.floor_frame[..., None]
    kind = scenes.floor[:, None]
    u = np.floor((frame[:, 0] * x + frame[:, 1] * y) * frame[:, 2])
    v = np.floor((frame[:, 0] * y - frame[:, 1] * x) * frame[:, 2])
    tile = u + np.where(kind == 1, v, 0)
    odd = tile - 2 * np.floor(tile / 2)  # 0 or 1
    first, second = scenes.floor_albedo[:, 0, :, None], scenes.floor_albedo[:, 1, :, None]
    return [first[:, i] + (second[:, i] - first[:, i]) * odd for i in range(3)]


def _openness(scenes: Scenes, x: Floats, y: Floats, on_object: NDArray[np.bool_]) -> Floats:
    """Return the share of the sky that floor points see: objects darken the floor around them."""
    seen = np.ones_like(x)
    for k in range(scenes.present.shape[1]):
        reach = scenes.scale[:, k, :1] * scenes.scale[:, k, :1] * scenes.present[:, k, None]
        dx, dy = x - scenes.place[:, k, :1], y - scenes.place[:, k, 1:]
        near = reach / (reach + dx * dx + dy * dy + np.float32(1e-6))
        seen = seen * (1 - np.float32(0.75) * near * near)
    return np.where(on_object, 1, seen)
