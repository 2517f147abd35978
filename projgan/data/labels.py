"""Classes of images, by dataset.json or by folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from projgan.data.image_source import Classes, parts_of, shown
from projgan.errors import DataError

LABELS = "dataset.json"  # {"labels": [[name, class], …]}, as StyleGAN's data sets have it


def classes_of(names: Sequence[str], lists: dict[str, bytes], asked: str) -> Classes:
    """Those of dataset.json or, where every image lies in one, of the folders."""
    if lists:
        return _listed(names, lists, asked)
    # Folders that hold nothing but each other are no classes: archives often have one around all.
    parts = [parts_of(name) for name in names]
    depth = 0
    while all(len(p) > depth + 1 for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    if any(len(p) <= depth + 1 for p in parts):
        return Classes()
    found = sorted({p[depth] for p in parts})
    number = {name: i for i, name in enumerate(found)}
    return Classes([number[p[depth]] for p in parts], tuple(map(shown, found)))


def _listed(names: Sequence[str], lists: dict[str, bytes], asked: str) -> Classes:
    """By the path that dataset.json gives, from where it lies; by the last part if it is unique."""
    labelled: dict[tuple[str, ...], Any] = {}
    for place, content in lists.items():
        where = shown(place)
        try:
            entries = json.loads(content)["labels"]
            pairs = entries.items() if isinstance(entries, dict) else entries or []
            pairs = [(str(name), label) for name, label in pairs]
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f'{asked}: {where} is not {{"labels": [[name, class], …]}} or {{"labels": null}}'
            ) from None
        for name, label in pairs:
            check_class(label, name, where, asked)
            if labelled.setdefault((*parts_of(place)[:-1], *parts_of(name)), label) != label:
                raise DataError(f"{asked}: {where} gives {shown(name)} two classes; keep one")
        if entries is not None and not pairs:
            raise DataError(f'{asked}: {where} lists no image; {{"labels": null}} says so')
    if not labelled:
        return Classes()
    last = Counter(path[-1] for path in labelled)
    unique = {path[-1]: label for path, label in labelled.items() if last[path[-1]] == 1}
    parts = [parts_of(name) for name in names]
    last = Counter(path[-1] for path in parts)
    unique = {name: label for name, label in unique.items() if last[name] == 1}
    labels = [labelled.get(path, unique.get(path[-1])) for path in parts]
    if missing := [n for n, label in zip(names, labels, strict=True) if label is None]:
        raise DataError(
            f"{asked}: {LABELS} gives no class to {len(missing)} of {len(names)} images, "
            f"{shown(missing[0])} first"
        )
    held = {*parts, *((name,) for name in unique if last[name] == 1)}
    rest = sum(path not in held and path[-1:] not in held for path in labelled)
    note = f"entries of {LABELS} without an image here: {rest}" if rest else None
    return Classes([int(label) for label in labels if label is not None], note=note)


def check_class(label: Any, name: str, where: str, asked: str) -> None:
    if type(label) is not int or label < 0:
        raise DataError(
            f"{asked}: {where} gives {shown(name)} the label {label!r:.60}; a class is a whole "
            'number from 0, and "labels": null is a set without classes'
        )
