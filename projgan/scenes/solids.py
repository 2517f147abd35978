"""Points at which rays enter and leave the solids, and the solids' surface normals.

All solids are convex and given in coordinates of their own in which each fills [-1, 1] on every
axis. A ray meets a convex solid in one interval, so every function returns where the ray enters
and leaves; it misses where enter >= leave. Only +, -, *, / and square roots are used: IEEE rounds
these the same in vector and scalar code, which keeps images the same in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32 when run; numpy's stubs lose track of the width
Vectors = tuple[Floats, Floats, Floats]
Interval = tuple[Floats, Floats]

_FAR = np.float32(1e9)
_TINY = np.float32(1e-12)  # added to divisors that may be exactly 0


def _meet(a: Interval, b: Interval) -> Interval:
    return np.maximum(a[0], b[0]), np.minimum(a[1], b[1])


def _quadratic(a: Floats, half_b: Floats, c: Floats) -> Interval:
    """Both roots of a t^2 + 2 half_b t + c, in order if a > 0; equal (a miss) if none is real."""
    root = np.sqrt(np.maximum(half_b * half_b - a * c, 0))
    inverse = 1 / (a + _TINY)
    return (-half_b - root) * inverse, (-half_b + root) * inverse


def _slab(o: Floats, d: Floats) -> Interval:
    inverse = 1 / (d + _TINY)
    first, second = (-1 - o) * inverse, (1 - o) * inverse
    return np.minimum(first, second), np.maximum(first, second)


def _sphere(o: Vectors, d: Vectors) -> Interval:
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1
    return _quadratic(a, b, c)


def _cube(o: Vectors, d: Vectors) -> Interval:
    return _meet(_meet(_slab(o[0], d[0]), _slab(o[1], d[1])), _slab(o[2], d[2]))


def _cylinder(o: Vectors, d: Vectors) -> Interval:
    a = d[0] * d[0] + d[1] * d[1]
    b = o[0] * d[0] + o[1] * d[1]
    c = o[0] * o[0] + o[1] * o[1] - 1
    return _meet(_quadratic(a, b, c), _slab(o[2], d[2]))


def _cone(o: Vectors, d: Vectors) -> Interval:
    # Inside: x^2 + y^2 <= (w / 2)^2 with w = 1 - z, the depth below the apex.
    w, dw = 1 - o[2], -d[2]
    a = d[0] * d[0] + d[1] * d[1] - dw * dw / 4
    b = o[0] * d[0] + o[1] * d[1] - w * dw / 4
    c = o[0] * o[0] + o[1] * o[1] - w * w / 4
    first, second = _quadratic(a, b, c)
    low, high = np.minimum(first, second), np.maximum(first, second)
    # A ray steeper than the flank (a < 0) is inside before one root and after the other, once in
    # the cone and once in its mirror image above the apex; the cone's is where w grows.
    down = dw > 0
    steep = a < 0
    enter = np.where(steep, np.where(down, high, -_FAR), low)
    leave = np.where(steep, np.where(down, _FAR, low), high)
    return _meet((enter, leave), _slab(o[2], d[2]))


def _pyramid(o: Vectors, d: Vectors) -> Interval:
    w, dw = (1 - o[2]) / 2, -d[2] / 2
    enter, leave = _slab(o[2], d[2])
    for axis in (0, 1):
        for sign in (-1, 1):
            height, slope = sign * o[axis] - w, sign * d[axis] - dw  # inside: height <= 0
            crossing = -height / (slope + _TINY)
            outward = slope > 0
            enter = np.maximum(enter, np.where(outward, -_FAR, crossing))
            leave = np.minimum(leave, np.where(outward, crossing, _FAR))
    return enter, leave


def _sphere_normal(p: Vectors) -> Vectors:
    return p


def _cube_normal(p: Vectors) -> Vectors:
    x, y, z = (np.abs(c) for c in p)
    on_x = (x >= y) & (x >= z)
    on_y = ~on_x & (y >= z)
    return (
        np.where(on_x, np.sign(p[0]), 0),
        np.where(on_y, np.sign(p[1]), 0),
        np.where(on_x | on_y, 0, np.sign(p[2])),
    )


def _cylinder_normal(p: Vectors) -> Vectors:
    on_side = p[2] * p[2] < p[0] * p[0] + p[1] * p[1]
    return (
        np.where(on_side, p[0], 0),
        np.where(on_side, p[1], 0),
        np.where(on_side, 0, np.sign(p[2])),
    )


def _cone_normal(p: Vectors) -> Vectors:
    return p[0], p[1], (1 - p[2]) / 4


def _pyramid_normal(p: Vectors) -> Vectors:
    on_x = np.abs(p[0]) > np.abs(p[1])
    return (
        np.where(on_x, np.sign(p[0]), 0),
        np.where(on_x, 0, np.sign(p[1])),
        np.full_like(p[2], 0.5),
    )


Intersect = Callable[[Vectors, Vectors], Interval]  # origin, direction -> enter, leave
Normal = Callable[[Vectors], Vectors]  # surface point -> outward, of any length

# One row per name of layout.SHAPES. Bottom faces rest on the floor, so no normal is theirs.
SOLIDS: dict[str, tuple[Intersect, Normal]] = {
    "sphere": (_sphere, _sphere_normal),
    "cube": (_cube, _cube_normal),
    "cylinder": (_cylinder, _cylinder_normal),
    "cone": (_cone, _cone_normal),
    "pyramid": (_pyramid, _pyramid_normal),
    "egg": (_sphere, _sphere_normal),
}
