"""Values from YAML files and the command line -> the types that our dataclasses declare.

The only module that knows OmegaConf: what it returns is plain, and every mistake is one line.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import json
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from projgan.config import Config
from projgan.errors import UserError, unknown

MOST_NODES = 100_000  # values in a YAML file
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where built


def read(cls: type[Any], path: Path) -> Any:
    """A YAML file as an instance of `cls`."""
    try:
        if _size(path) > MOST_NODES:
            raise UserError(f"{path}: its aliases unfold to more than {MOST_NODES} values")
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise UserError(f"{path}: must hold keys and values at its top level")
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), loaded))
        _check_flat(path, made)
        return made
    except ConfigKeyError as error:
        owner: Any = error.object_type
        known = isinstance(owner, type) and dataclasses.is_dataclass(owner)
        names = [f.name for f in dataclasses.fields(owner)] if known else []
        raise UserError(f"{path}: {unknown('key', str(error.full_key), names)}") from error
    except MissingMandatoryValue as error:
        raise UserError(f"{path}: {error.full_key} is missing") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{path}: {key}: {_first_line(error)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file") from error
    except UserError:
        raise
    except Exception as error:  # the YAML library's own
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error


def text_of(path: Path, key: str) -> str:
    """One text at the top level of a file that ships, without checking the rest; "" = none."""
    with path.open("rb") as file:
        root: Any = yaml.compose(file, Loader=_SafeLoader)
    return next((str(value.value) for name, value in root.value if name.value == key), "")


def merged(made: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """The same dataclass instance with other values.

    Raises:
        UserError: one line about a value of another type; its key stands after `prefix`.
    """
    try:
        found = OmegaConf.merge(OmegaConf.structured(made), dict(values))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise UserError(f"{prefix}{key}={values.get(str(key))}: {_first_line(error)}") from error
    return OmegaConf.to_object(found)


def parse_value(text: str, key: str) -> Any:
    """A value as the command line gives it: YAML, so 1e-3 is a number and [1, 2] a list."""
    try:
        return _plain(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except Exception as error:  # the YAML library's own errors, or an interpolation's
        raise UserError(f"{key}={text}: not a value ({_first_line(error)})") from error


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a dict; the keys are checked, the values typed later."""
    out: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        check_key(key, "command line")
        if key in out:
            raise UserError(f"{key} is given twice on the command line")
        out[key] = parse_value(value, key)
    return out


@functools.cache
def fields() -> dict[str, Any]:
    """Dotted key -> type of every configuration field."""
    return {
        f"{group}.{name}": hint
        for group, cls in get_type_hints(Config).items()
        for name, hint in get_type_hints(cls).items()
    }


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """The message for a key that is no field; lists its own group where it names one.

    Args:
        others: keys beside the configuration's that would have been right.
    """
    group = [name for name in fields() if name.split(".")[0] == key.split(".")[0]]
    if group:
        return unknown("key", key, group)
    near = difflib.get_close_matches(key, [*others, *fields()], n=1, cutoff=0.5)
    groups = [f"{name}.…" for name in dict.fromkeys(name.split(".")[0] for name in fields())]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown key {key!r}.{hint} Known: {', '.join([*others, *groups])}"


def check_key(key: str, where: str) -> None:
    """Refuses a key that is no field of the configuration."""
    if key not in fields():
        raise UserError(f"{where}: {unknown_key(key)}")


def is_several(key: str, value: Any) -> bool:
    """Whether `value` is a list of values of the field `key`, not one value."""
    takes_list = get_origin(fields()[key]) is tuple
    return isinstance(value, list) and (not takes_list or any(isinstance(v, list) for v in value))


def convert(key: str, value: Any, where: str) -> Any:
    """`value` converted to the type of the field `key`."""
    check_key(key, where)
    with at(where):
        return _convert(key, json.dumps(value, default=str))


@contextmanager
def at(where: str) -> Iterator[None]:
    """Says where the mistake is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


@functools.cache
def _convert(key: str, value_json: str) -> Any:
    # Cached, since a grid repeats the same few settings in all its runs.
    value, hint = json.loads(value_json), fields()[key]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices and value not in choices:
        raise UserError(unknown(key, str(value), choices))
    group, name = key.split(".")
    try:
        made = _plain(OmegaConf.merge(_template(group), {name: value}))[name]
    except OmegaConfBaseException as error:
        raise UserError(f"{key}={value}: give {_wanted(hint)}") from error
    strange = isinstance(value, dict) or (hint is bool and not isinstance(value, bool))
    if strange or (isinstance(made, float) and not math.isfinite(made)):
        raise UserError(f"{key}={value}: give {_wanted(hint)}")
    return tuple(made) if isinstance(made, list) else made


@functools.cache
def _template(group: str) -> DictConfig:
    return OmegaConf.structured(get_type_hints(Config)[group])


def _wanted(hint: Any) -> str:
    """A type in words, for an error message."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list of whole numbers such as [1,2]"
    if get_origin(hint) in (Union, types.UnionType):
        return _wanted(get_args(hint)[0]) + " or null"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[hint]


def _check_flat(path: Path, made: Any) -> None:
    """Refuses a list or mapping inside a list of plain values, which OmegaConf lets pass."""
    hints = get_type_hints(type(made))
    for f in dataclasses.fields(made):
        value = getattr(made, f.name)
        items = value.values() if isinstance(value, dict) else value
        if not isinstance(value, list | dict):
            items = [value]
        for item in items:
            if dataclasses.is_dataclass(item):
                _check_flat(path, item)
            elif (
                item is not value
                and isinstance(item, list | dict)
                and "Any" not in str(hints[f.name])
            ):
                raise UserError(f"{path}: {f.name}: give plain values, not {item!r}")


def _size(path: Path) -> int:
    """How many values a YAML file unfolds to; nested aliases make a short file endless."""
    counted: dict[int, int] = {}

    def count(node: Any) -> int:
        if not isinstance(node.value, list):
            return 1
        if id(node) not in counted:
            counted[id(node)] = MOST_NODES + 1  # an alias of what holds it never ends
            parts = itertools.chain.from_iterable(
                part if isinstance(part, tuple) else (part,) for part in node.value
            )
            counted[id(node)] = 1 + sum(map(count, parts))
        return counted[id(node)]

    with path.open("rb") as file:
        root = yaml.compose(file, Loader=_SafeLoader)
    return 0 if root is None else count(root)


def _plain(value: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(value, resolve=True)
    return dict(plain)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
