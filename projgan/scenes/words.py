"""Labels and captions, from the same drawn parameters as the pixels."""

from __future__ import annotations

from itertools import product

import numpy as np

from projgan.scenes.layout import (
    COLOURS,
    FLOORS,
    MATERIALS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    Ints,
    Scenes,
)

_COUNTS = ("one object", "two objects", "three objects", "four objects")

CLASSES: dict[str, tuple[str, ...]] = {
    "clevr": _COUNTS[:MAX_OBJECTS],
    "pretrain": tuple(f"{c} {s}" for s, c in product(SHAPES, COLOURS)),
}


def label(name: str, scenes: Scenes) -> Ints:
    """Class numbers, int64 [N]: how many objects ("clevr"), what the main one is ("pretrain")."""
    main: Ints = scenes.shape[:, 0] * len(COLOURS) + scenes.colour[:, 0]
    count: Ints = np.count_nonzero(scenes.present, axis=1).astype(np.int64)
    return count - 1 if name == "clevr" else main


def caption(scenes: Scenes, n: int) -> str:
    """One sentence on image n: its objects, the main one first, and its floor."""
    shapes, colours = list(SHAPES), list(COLOURS)
    objects = [
        f"a {SIZES[scenes.size[n, k]]} {MATERIALS[scenes.shiny[n, k]]}"
        f" {colours[scenes.colour[n, k]]} {shapes[scenes.shape[n, k]]}"
        for k in np.flatnonzero(scenes.present[n])
    ]
    *most, last = objects
    listed = f"{', '.join(most)} and {last}" if most else last
    colour, pattern = colours[scenes.floor_colour[n]], FLOORS[scenes.floor[n]]
    return f"{listed} on a {colour} {'' if pattern == 'plain' else pattern + ' '}floor"
