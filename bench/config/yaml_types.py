"""Values from YAML files and the command line -> the types that our dataclasses declare.

The only module that knows OmegaConf: what it returns is plain, and every mistake is one line.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import shlex
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from bench.config.schema import EvalSection
from projgan.config import Config, policy_of
from projgan.errors import UserError, unknown

COMMAND_LINE = "command line"  # where a value was typed
MOST_NODES = 100_000  # values in a YAML file
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where built


class _SafeLoader(_Base):  # type: ignore[misc]
    """YAML 1.2: true, false, null and numbers are not texts; off, yes, 4:00:00 and dates are."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - of YAML 1.1 nothing

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [name.value for name, _ in node.value if name.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice")
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", "~nN"),
    ("int", "[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", (r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?"
              r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), "-+.0123456789"),
    ("merge", "<<", "<"),
):  # fmt: skip
    _SafeLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"({_form})$"),
        [*_first, *([""] if _tag == "null" else [])],
    )


def read(cls: Any, path: Path) -> Any:
    """Return a YAML file as an instance of the dataclass `cls`.

    Raises:
        UserError: one line about the first mistake, with the file's name.
    """
    with at(str(path)):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})") from error
        return deepcopy(_made(cls, content))


@functools.lru_cache(maxsize=256)
def _made(cls: Any, content: bytes) -> Any:
    """Return what `read` does; a report reads the same files many times, and merging is slow."""
    values = _values(content)
    check(cls, values)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
    except ConfigKeyError as error:
        owner: Any = error.object_type
        names = [f.name for f in dataclasses.fields(owner)] if owner is not dict else []
        raise UserError(unknown("key", str(error.full_key), names)) from error
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing") from error
    except OmegaConfBaseException as error:  # as of an interpolation
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def _values(content: bytes) -> dict[str, Any]:
    """Return the keys and values of a YAML text."""
    try:
        loader = _SafeLoader(content)
        root = loader.get_single_node()
        if _size(root) > MOST_NODES:
            raise UserError(f"its aliases unfold to more than {MOST_NODES} values")
        values = None if root is None else loader.construct_document(root)
    except UnicodeDecodeError as error:
        raise UserError("is not a text file") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError("must hold keys and values at its top level")
    return values


def text_of(path: Path, key: str) -> str:
    """One text at the top level of a file that ships, without checking the rest; "" = none."""
    with path.open("rb") as file:
        root: Any = yaml.compose(file, Loader=_SafeLoader)
    return next((str(value.value) for name, value in root.value if name.value == key), "")


def changed(made: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """The same dataclass instance with other values.

    Raises:
        UserError: one line about a value of another type; its key stands after `prefix`.
    """
    hints = get_type_hints(type(made))
    typed = {name: _typed(hints[name], value, prefix + name) for name, value in values.items()}
    return dataclasses.replace(made, **typed)


def evaluation(key: str, value: Any) -> Any:
    """A value for a key of `eval.` as the command line gives it; one entry is a list of it."""
    kind = kinds(settings()[key])[0]  # null in a file means that it is not given there
    if get_origin(kind) is list and not isinstance(value, list | None):
        value = [value]
    return _typed(kind, value, key)


def parse_value(text: str, key: str) -> Any:
    """A value as the command line gives it: YAML, so 1e-3 is a number and [1, 2] a list."""
    try:
        return yaml.load(text, Loader=_SafeLoader) if text.strip() else text
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{key}={text}: not a value ({str(error).splitlines()[0]})") from error


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a dict; the keys are checked, the values typed later."""
    out: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in settings():
            raise UserError(f"command line: {unknown_key(key)}")
        if key in out:
            raise UserError(f"{key} is given twice on the command line")
        out[key] = parse_value(value, key)
    return out


def argument(key: str, value: Any) -> str:
    """What gives a key this value when it is typed into a shell, zsh included."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return shlex.quote(f"{key}={text}")


@functools.cache
def fields() -> dict[str, Any]:
    """Dotted key -> type of every configuration field."""
    return {
        f"{group}.{name}": hint
        for group, cls in get_type_hints(Config).items()
        for name, hint in get_type_hints(cls).items()
    }


@functools.cache
def settings() -> dict[str, Any]:
    """Dotted key -> type of what the command line may set for every run of a grid."""
    measuring = {f"eval.{name}": hint for name, hint in get_type_hints(EvalSection).items()}
    return fields() | measuring


def unknown_key(key: str, others: Iterable[str] = ()) -> str:
    """The message for a key that is no setting; lists its own group where it names one.

    Args:
        others: further keys that would have been right.
    """
    group = [name for name in settings() if name.split(".")[0] == key.split(".")[0]]
    if group:
        return unknown("key", key, group)
    near = difflib.get_close_matches(key, [*others, *settings()], n=1, cutoff=0.5)
    groups = [f"{name}.…" for name in dict.fromkeys(name.split(".")[0] for name in settings())]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown key {key!r}.{hint} Known: {', '.join([*others, *groups])}"


def check_key(key: str, where: str) -> None:
    """Refuses a key that is no field of the configuration."""
    if key in settings().keys() - fields().keys():
        raise UserError(f"{where}: {key} decides no run: write it under `eval:`")
    if key not in fields():
        raise UserError(f"{where}: {unknown_key(key)}")


def is_several(key: str, value: Any) -> bool:
    """Whether `value` is a list of values of the field `key`, and not one value."""
    takes_list = get_origin(fields()[key]) is tuple
    return isinstance(value, list) and (not takes_list or any(isinstance(v, list) for v in value))


def convert(key: str, value: Any, where: str) -> Any:
    """`value` converted to the type of the field `key`."""
    check_key(key, where)
    with at(where):
        return _convert(key, json.dumps(value, default=str), where == COMMAND_LINE)


@contextmanager
def at(where: str) -> Iterator[None]:
    """Puts the place of a mistake before its message."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


@functools.cache
def _convert(key: str, value_json: str, is_typed: bool) -> Any:
    # Cached, since a grid repeats the same few settings in all its runs.
    value, hint = json.loads(value_json), fields()[key]
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise UserError(unknown(key, str(value), get_args(hint)))
    if hint is bool and isinstance(value, str):
        value = {"yes": True, "on": True, "no": False, "off": False}.get(value.lower(), value)
    made = _typed(hint, value, key, is_typed)
    return policy_of(made) if key == "augment.policy" else made


def _typed(hint: Any, value: Any, key: str, is_typed: bool = True) -> Any:
    """A checked value as a field of type `hint` holds it."""
    check(hint, value, key, is_typed)
    kind = kinds(hint)[0]
    if get_origin(kind) in (tuple, list) and value is not None:
        return get_origin(kind)(_typed(get_args(kind)[0], part, key) for part in value)
    return kind(value) if kind in (float, str) and value is not None else value


def _wanted(hint: Any, key: str = "") -> str:
    """A type in words, for an error message; with a key, an example that can be typed."""
    kind = kinds(hint)[0]
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if get_origin(kind) is Literal:
        words = "one of " + ", ".join(map(str, get_args(kind)))
    elif get_origin(kind) in (tuple, list):
        examples = {int: ("whole numbers", "[1,2]"), float: ("numbers", "[1,2.5]"),
                    str: ("texts", "[A,B]")}  # fmt: skip
        of, example = examples.get(get_args(kind)[0], ("entries", ""))
        example = argument(key, example) if key else example
        words = f"a list of {of}" + (f" such as {example}" if example else "")
    else:
        words = plain.get(kind, "keys and values")
    optional = kind is not hint and type(None) in get_args(hint)
    return f"{words} or null" if optional else words


def check(hint: Any, value: Any, key: str = "", is_typed: bool = False) -> None:
    """Refuses a value of another type than `hint`, also within lists, mappings and dataclasses.

    OmegaConf takes more, and speaks of its own nodes.

    Args:
        is_typed: whether it was typed into a shell, where a message shows what to type instead.
    """
    kind, *others = kinds(hint)
    if kind is Any or (value is None and type(None) in get_args(hint)):
        return
    made_of = dict if dataclasses.is_dataclass(kind) else get_origin(kind) or kind
    fits = {float: (int, float), str: (str, int, float, bool), tuple: (list,)}.get(made_of)
    is_number = not isinstance(value, float) or math.isfinite(value)
    if made_of is Literal:
        fits, is_number = (str,), value in get_args(kind)
    if type(value) not in (*(fits or (made_of,)), *others) or not is_number:
        shown = "null" if value is None else str(value)[:60]
        raise UserError(f"{key}={shown}: give {_wanted(hint, key * is_typed)}")
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        for name, part in value.items():
            check(hints.get(name, Any), part, f"{key}.{name}".lstrip("."))
    elif made_of in (list, tuple):
        for i, part in enumerate(value):
            check(get_args(kind)[0], part, f"{key}[{i}]")
    elif made_of is dict:
        for name, part in value.items():
            check(get_args(kind)[1], part, f"{key}.{name}")


def kinds(hint: Any) -> list[Any]:
    """The types that a value may have, apart from null."""
    several = get_origin(hint) in (Union, types.UnionType)
    return [kind for kind in get_args(hint) if kind is not types.NoneType] if several else [hint]


def _size(root: Any) -> int:
    """Values that a YAML file unfolds to; nested aliases make a short file endless."""
    counted: dict[int, int] = {}

    def count(node: Any) -> int:
        if not isinstance(node.value, list):
            return 1
        if id(node) not in counted:
            counted[id(node)] = MOST_NODES + 1  # an alias of what holds it never ends
            parts = [p for part in node.value for p in (part if type(part) is tuple else [part])]
            counted[id(node)] = 1 + sum(map(count, parts))
        return counted[id(node)]

    return 0 if root is None else count(root)
