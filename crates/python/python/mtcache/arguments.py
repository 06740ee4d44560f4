"""Arguments of a call as part of a key: every one of them, however it was given."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from typing import Any


def placed(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """What puts a call's arguments in their places: by name or not, and the defaults too, they come out the same."""
    signature = inspect.signature(function)

    def place(*args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    return place


def digest(*values: Any) -> str:
    """A text of 32 digits that is equal for equal values and differs for others: ``1`` is not ``"1"``.

    Raises ``TypeError`` for values whose text would not tell them apart: arrays and tables, which are printed in part, and objects that
    print as their address.
    """
    written = json.dumps([_canonical(value) for value in values], sort_keys=True)
    return hashlib.sha256(written.encode(errors="surrogatepass")).hexdigest()[:32]


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        members = ([_canonical(name), _canonical(member)] for name, member in value.items())
        return {"dict": sorted(members, key=json.dumps)}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(map(_canonical, value), key=json.dumps)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    kind = type(value)
    is_bare = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if is_bare or getattr(value, "ndim", None) or hasattr(value, "columns"):
        raise TypeError(f"a {kind.__qualname__} among the arguments cannot be told from others by its text: make the key from what matters of it")
    return {kind.__qualname__: str(value)}
