"""Regions: one kind of data under one policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import models
from ._loading import in_thread, starter
from ._mtcache import _RegionCore

if TYPE_CHECKING:
    from .cache import Cache

T = TypeVar("T")

_DEFAULTS: dict[str, Any] = {
    "key_base": None,
    "stale": 0,
    "none_ttl": 5.0,
    "ttl_jitter": 0.0,
    "undecodable": "error",
    "near": False,
    "share": False,
    "load_timeout": 30.0,
    "max_loads": 256,
    "max_waiting_loads": 10_000,
    "max_load_wait": 30.0,
}


@dataclass(frozen=True)
class Read(Generic[T]):
    """A value with what is known of it."""

    #: The value.
    value: T
    #: ``near``, ``backend`` or ``loader``.
    source: str
    #: Whether it is past its time to live.
    is_stale: bool
    #: ``exact``, ``at_most`` or ``unknown``.
    age_bound: str
    #: Its age in seconds, if that is known.
    age: float | None


class Region(_RegionCore, Generic[T]):
    """One kind of data. Made by :meth:`Cache.region`."""

    def __init__(self, opened: Any, form: models.Form | None = None) -> None:
        self._form = form

    def get_or_load(self, id, loader, *, max_age=None):
        return self._get_or_load(id, starter(loader), max_age, False)

    async def read(self, id, *, max_age=None, with_age=True):
        told = await self._read(id, max_age, with_age)
        return None if told is None else Read(*told)

    async def read_or_load(self, id, loader, *, max_age=None):
        return Read(*await self._get_or_load(id, starter(loader), max_age, True))

    async def get_many(self, ids):
        ids = list(ids)
        return {id: found[0] for id, found in zip(ids, await self._get_many(ids)) if found}

    def delete(self, id):
        return self.invalidate(id)

    def set_many(self, entries):
        return _RegionCore.set_many(self, dict(entries))

    def _load_in_thread(self, id, loader, max_age=None):
        return self._get_or_load_in_thread(id, in_thread(loader), max_age, False)


class _ModelRegion(Region[T]):
    """A region whose values are of a class: a pydantic model or a dataclass."""

    _form: models.Form

    async def get(self, id, default=None, *, max_age=None):
        told = await self._read(id, max_age, False)
        return default if told is None else self._form.load(told[0])

    def peek(self, id, default=None):
        found = _RegionCore.peek(self, id, _NOTHING)
        return default if found is _NOTHING else self._form.load(found)

    async def get_or_load(self, id, loader, *, max_age=None):
        told = await self._get_or_load(id, starter(loader, self._form.dump), max_age, False)
        return self._form.load(told)

    async def read(self, id, *, max_age=None, with_age=True):
        told = await self._read(id, max_age, with_age)
        return None if told is None else Read(self._form.load(told[0]), *told[1:])

    async def read_or_load(self, id, loader, *, max_age=None):
        told = await self._get_or_load(id, starter(loader, self._form.dump), max_age, True)
        return Read(self._form.load(told[0]), *told[1:])

    async def get_many(self, ids):
        return {id: self._form.load(found) for id, found in (await Region.get_many(self, ids)).items()}

    def set(self, id, value, *, ttl=None, nx=False, xx=False, newer_by=None):
        return _RegionCore.set(self, id, self._form.dump(value), ttl=ttl, nx=nx, xx=xx, newer_by=newer_by)

    def set_many(self, entries):
        return _RegionCore.set_many(self, {id: self._form.dump(value) for id, value in dict(entries).items()})

    def _load_in_thread(self, id, loader, max_age=None):
        return self._get_or_load_in_thread(id, in_thread(loader, self._form.dump), max_age, False)


_NOTHING = object()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _region_of(cache: Cache, name: Any, ttl: Any, options: dict[str, Any]) -> Region[Any]:
    model = options.pop("model", None)
    if isinstance(name, type):
        name, model = _snake(name.__name__), name
    if ttl is None:
        raise TypeError("a region has a ttl")
    unknown = options.keys() - _DEFAULTS.keys()
    if unknown:
        raise TypeError(f"a region has no option {', '.join(sorted(unknown))}; there are {', '.join(_DEFAULTS)}")
    opened = cache._region(name, ttl=ttl, **{**_DEFAULTS, **options})
    if model is None:
        return Region(opened)
    return _ModelRegion(opened, models.form_of(model))
