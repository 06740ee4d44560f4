"""Values of a class of their own: pydantic models, and dataclasses of the standard library.

A model is stored as the JSON object that other services read. A ``Decimal`` is a JSON text with all its digits, a ``datetime`` an ISO
8601 text; reading makes them again. What is stored and does not fit the model is an ``UndecodableError``.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from .errors import UndecodableError, UnencodableError

_NONE: type = type(None)


@dataclasses.dataclass(frozen=True)
class Form:
    """How values of a class become JSON types, and back."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def form_of(model: Any) -> Form:
    """The form of a model class."""
    if hasattr(model, "model_validate") and hasattr(model, "model_dump"):
        return _pydantic(model)
    if dataclasses.is_dataclass(model):
        return _dataclass(model)
    raise TypeError(f"{model!r} is neither a pydantic model nor a dataclass")


def _pydantic(model: Any) -> Form:
    # By the names of its fields, as it was stored, and by aliases, as others may have stored it; pydantic can since 2.11.
    names = {"by_alias": True, "by_name": True}
    if "by_name" not in inspect.signature(model.model_validate).parameters:
        names = {}

    def dump(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, model):
            raise UnencodableError(f"the region holds {model.__name__}, not {type(value).__name__}")
        # What can be read back alone: not what is computed of it.
        return value.model_dump(mode="json", round_trip=True, by_alias=not names)

    def load(stored: Any) -> Any:
        if stored is None:
            return None
        try:
            return model.model_validate(stored, **names)
        except ValueError as error:
            raise UndecodableError(f"what is stored is no {model.__name__}: {error}") from error

    return Form(dump, load)


def _dataclass(model: Any) -> Form:
    def dump(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, model):
            raise UnencodableError(f"the region holds {model.__name__}, not {type(value).__name__}")
        return _plain(value)

    def load(stored: Any) -> Any:
        if stored is None:
            return None
        try:
            return _made(model, stored)
        except (TypeError, ValueError, ArithmeticError, KeyError) as error:
            raise UndecodableError(f"what is stored is no {model.__name__}: {error}") from error

    return Form(dump, load)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, dict):
        return {_plain(name): _plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return value


def _made(kind: Any, stored: Any) -> Any:
    """A value of this type out of what JSON gave."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _made(typing.get_args(kind)[0], stored)
    if origin in (typing.Union, types.UnionType):
        return _made_of_one(typing.get_args(kind), stored)
    if origin is not None:
        return _made_of_items(origin, typing.get_args(kind), stored)
    if dataclasses.is_dataclass(kind):
        if not isinstance(stored, dict):
            raise TypeError(f"an object is due where {type(stored).__name__} is stored")
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = [field for field in dataclasses.fields(kind) if field.init and field.name in stored]
        make: Any = kind
        return make(**{field.name: _made(hints[field.name], stored[field.name]) for field in fields})
    if kind is Any or not isinstance(kind, type):
        return stored
    if issubclass(kind, enum.Enum):
        return kind(stored)
    if kind in (datetime, date, time):
        if not isinstance(stored, str):
            raise TypeError(f"a text is due where {type(stored).__name__} is stored")
        text = stored[:-1] + "+00:00" if stored.endswith("Z") else stored
        return kind.fromisoformat(text)
    if kind is timedelta:
        return timedelta(seconds=stored)
    if kind in (Decimal, uuid.UUID):
        return kind(str(stored))
    if kind is float and isinstance(stored, int) and not isinstance(stored, bool):
        return float(stored)
    if kind in (tuple, set, frozenset) and isinstance(stored, list):
        return kind(stored)
    if not isinstance(stored, kind) or (isinstance(stored, bool) and kind is not bool and kind is not object):
        raise TypeError(f"{kind.__name__} is due where {type(stored).__name__} is stored")
    return stored


def _made_of_one(kinds: tuple[Any, ...], stored: Any) -> Any:
    if stored is None and _NONE in kinds:
        return None
    for kind in kinds:
        if kind is _NONE:
            continue
        try:
            return _made(kind, stored)
        except (TypeError, ValueError, ArithmeticError, KeyError, AttributeError):
            pass
    raise TypeError(f"none of {kinds} fits what is stored")


def _made_of_items(origin: Any, kinds: tuple[Any, ...], stored: Any) -> Any:
    if origin is typing.Literal:
        if stored not in kinds:
            raise ValueError(f"{stored!r} is none of {kinds}")
        return stored
    if isinstance(origin, type) and issubclass(origin, dict) and isinstance(stored, dict):
        # JSON's names are texts; those of other types are made of them.
        name = (lambda text: int(text)) if kinds[0] is int else (lambda text: _made(kinds[0], text))
        return {name(text): _made(kinds[1], member) for text, member in stored.items()}
    if not isinstance(stored, list):
        raise TypeError(f"an array is due where {type(stored).__name__} is stored")
    if origin is tuple and not (len(kinds) == 2 and kinds[1] is Ellipsis):
        if len(kinds) != len(stored):
            raise ValueError(f"{len(kinds)} items are due where {len(stored)} are stored")
        return tuple(_made(kind, item) for kind, item in zip(kinds, stored))
    items = [_made(kinds[0], item) for item in stored]
    return origin(items) if origin in (tuple, set, frozenset) else items
