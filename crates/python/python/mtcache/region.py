"""Regions: one kind of data under one policy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import models
from ._loading import is_async
from ._mtcache import _RegionCore, _waits_here
from .errors import UndecodableError

if TYPE_CHECKING:
    from .cache import Cache

_T = TypeVar("_T")


@dataclass(frozen=True)
class Framing:
    """How the values of a framed region are stored: behind a small header that keeps their exact age, their tags and their schema.

    Other programs that read the keys must know that form. Given to :meth:`Cache.region` as ``framed=``; ``framed=True`` means
    ``Framing()``.

    >>> import asyncio, mtcache
    >>> async def main():
    ...     async with mtcache.connect("embedded://") as cache:
    ...         framing = mtcache.Framing(compression="zstd", tags=["backtests"])
    ...         backtests = cache.region("backtest", ttl=86_400, framed=framing, codec="messagepack")
    ...         await backtests.set("s1", {"curve": b"\\x00\\xff" * 10_000})
    ...         print((await backtests.read("s1")).age_bound, len((await backtests.get("s1"))["curve"]))
    ...         await cache.invalidate_tag("backtests")
    ...         print(await backtests.get("s1"))
    >>> asyncio.run(main())
    exact 20000
    None
    """

    #: How values above ``compress_above`` bytes are packed, if that makes them smaller: ``none``, ``lz4`` or ``zstd``.
    compression: str = "none"
    #: Values up to so many bytes are not packed.
    compress_above: int = 1024
    #: The version of the values' shape. Raise it when readers of the version before could misread a value.
    schema: int = 1
    #: What a value of a newer schema is to this reader: ``miss`` or ``error``.
    newer: str = "miss"
    #: What a plain value under a key of the region is: ``read``, ``miss`` or ``error``.
    plain: str = "read"
    #: Tags that every value carries; at most 16 with those of :meth:`Region.tagged`.
    tags: Iterable[str] = ()


@dataclass(frozen=True)
class Read(Generic[_T]):
    """A value with what is known of it."""

    #: The value.
    value: _T
    #: ``near``, ``backend`` or ``loader``.
    source: str
    #: Whether it is past its time to live.
    is_stale: bool
    #: ``exact``, ``at_most`` or ``unknown``.
    age_bound: str
    #: Its age in seconds, if that is known.
    age: float | None
    #: As what hit it is counted.
    _counted: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Previous(Generic[_T]):
    """What is known of an entry that is to be loaded: within its time to live, if it is loaded ahead of its end, or its stale window."""

    value: _T
    #: What the source gave with it, see :class:`Loaded`; None in plain regions.
    validator: bytes | None = None


@dataclass(frozen=True)
class Loaded(Generic[_T]):
    """What a loader of :meth:`Region.get_or_reload` brings."""

    value: _T | None = None
    #: How long the value is fresh, if that is shorter than the region says; in seconds. Less than a millisecond is not kept.
    ttl: Any = None
    #: What the source gave to ask later whether the value has changed. For framed regions, which keep it beside the value.
    validator: bytes | str | None = None
    #: False: the value is for those who wait for this load, and what was stored before stays until its end.
    is_kept: bool = True
    #: False: the value that the loader was given is still the source's, and is stored again.
    is_modified: bool = True

    @classmethod
    def not_modified(cls, *, ttl=None, validator=None):
        """Says that what the loader was given is still the source's."""
        return cls(None, ttl, validator, True, False)

    def _said(self, dump):
        validator = self.validator.encode() if isinstance(self.validator, str) else self.validator
        value = self.value if dump is None or not self.is_modified else dump(self.value)
        return self.is_modified, value, self.ttl, self.is_kept, validator


@dataclass(frozen=True)
class WarmUpReport:
    """What a warm-up has done, so far or in the end."""

    #: Entries that were asked for.
    asked: int
    #: Of these, those that the cache had.
    found: int
    #: Those that were loaded.
    loaded: int
    #: Those that are not there.
    missing: int
    #: Those whose read failed.
    failed: int


class Region(_RegionCore, Generic[_T]):
    """One kind of data. Made by :meth:`Cache.region`."""

    def __init__(self, opened: Any, form: models.Form | None = None, misfit: str = "error") -> None:
        self._form = form
        #: What a stored value is that is none of the model's: ``error`` or ``miss``.
        self._misfit = misfit

    def get_or_load(self, id, loader, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=False):
        return self._get_or_load(id, loader, None, False, max_age, backend_timeout, deadline, fresh_only)

    async def read(self, id, *, max_age=None, with_age=True, backend_timeout=None, deadline=None, fresh_only=False):
        told = await self._read(id, with_age, max_age, backend_timeout, deadline, fresh_only)
        return None if told is None else Read(*told)

    async def read_or_load(self, id, loader, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=False):
        return Read(*await self._get_or_load(id, loader, None, True, max_age, backend_timeout, deadline, fresh_only))

    async def get_or_reload(self, id, loader, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=False):
        ask, form = self._knowing(loader), self._said
        read = self._read_of(await self._get_or_reload(id, ask, form, max_age, backend_timeout, deadline, fresh_only))
        if read is None:
            await self._removed(id)
            told = await self._get_or_reload(id, ask, form, max_age, backend_timeout, deadline, fresh_only)
            read = Read(self._object_of(told[0]), *told[1:])
        return read

    def _knowing(self, loader):
        """The loader as it is called: with what the extension knows."""

        def previous(known):
            read = None if known is None else self._read_of((known[0], "backend", False, "unknown", None))
            return None if read is None else Previous(read.value, known[1])

        if is_async(loader):

            async def ask(known):
                return await loader(previous(known))

        else:

            def ask(known):
                return loader(previous(known))

        return ask

    def _said(self, loaded):
        """What a loader brought, as the extension takes it; a value alone is one without more to say."""
        loaded = loaded if isinstance(loaded, Loaded) else Loaded(loaded)
        return loaded._said(self._dump_one)

    def _object_of(self, stored):
        return stored if self._form is None else self._form.load(stored)

    def _read_of(self, told):
        return Read(*told)

    async def get_many(self, ids):
        ids = list(ids)
        return {id: found[0] for id, found in zip(ids, await self._get_many(ids)) if found}

    async def get_or_load_many(self, ids, loader, **demands):
        found = await self.get_or_load_each(ids, loader, **demands)
        return _values(found)

    async def get_or_load_each(self, ids, loader, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=False):
        ids = list(ids)
        outcomes = await self._get_or_load_each(ids, loader, self._dump_many, max_age, backend_timeout, deadline, fresh_only)
        return {id: Read(*told) if type(told) is tuple else told for id, told in zip(ids, outcomes)}

    async def warm_up(self, ids, loader=None, *, at_once=16, per_second=1000, progress=None):
        tell = None if progress is None else lambda counts: progress(WarmUpReport(*counts))
        return WarmUpReport(*await self._warm_up(list(ids), loader, self._dump_one, at_once, per_second, tell))

    def tagged(self, *tags):
        return type(self)(self._tagged(list(tags)), self._form, self._misfit)

    def reads_schema(self, schema, upgrade):
        return type(self)(self._reads_schema(schema, upgrade), self._form, self._misfit)

    def reload(self, **options):
        return self._reload(**options)

    def delete(self, id):
        return self.invalidate(id)

    def set_many(self, entries):
        return _RegionCore.set_many(self, dict(entries))

    @property
    def _dump_one(self):
        return None if self._form is None else self._form.dump

    @property
    def _dump_many(self):
        if self._form is None:
            return None
        dump = self._form.dump
        return lambda values: {id: dump(value) for id, value in dict(values).items()}


def _values(found):
    """The values of a batch; raises what any of its entries failed with."""
    for outcome in found.values():
        if isinstance(outcome, BaseException):
            raise outcome
    return {id: read.value for id, read in found.items()}


class _ModelRegion(Region[_T]):
    """A region whose values are of a class: a pydantic model or a dataclass."""

    _form: models.Form

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._removals: dict[Any, asyncio.Future[bool]] = {}

    def _made(self, told):
        """The read of a value of the class; None if what is stored is none and that counts as a miss."""
        try:
            return Read(self._form.load(told[0]), *told[1:])
        except UndecodableError:
            self._count_undecodable(told[5])
            if self._misfit == "error":
                raise
            return None

    _read_of = _made

    def _remade(self, read):
        return self._made((read.value, read.source, read.is_stale, read.age_bound, read.age, read._counted))

    async def _removed(self, id):
        """Removes what is no value, once for all in this loop who have come across it."""
        if _waits_here():
            await self.invalidate(id)
            return
        place = (asyncio.get_running_loop(), id)
        removal = self._removals.get(place)
        if removal is None:
            removal = self._removals[place] = asyncio.ensure_future(self.invalidate(id))
            removal.add_done_callback(lambda _: self._removals.pop(place))
        await asyncio.shield(removal)

    async def get(self, id, default=None, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=False):
        told = await self._read(id, False, max_age, backend_timeout, deadline, fresh_only)
        read = None if told is None else self._made(told)
        return default if read is None else read.value

    def peek(self, id, default=None):
        found = _RegionCore.peek(self, id, _NOTHING)
        read = None if found is _NOTHING else self._made((found, "near", False, "unknown", None, "near"))
        return default if read is None else read.value

    async def get_or_load(self, id, loader, **demands):
        return (await self.read_or_load(id, loader, **demands)).value

    async def read(self, id, *, max_age=None, with_age=True, backend_timeout=None, deadline=None, fresh_only=False):
        told = await self._read(id, with_age, max_age, backend_timeout, deadline, fresh_only)
        return None if told is None else self._made(told)

    async def read_or_load(self, id, loader, *, max_age=None, backend_timeout=None, deadline=None, fresh_only=False):
        dump, demands = self._form.dump, (max_age, backend_timeout, deadline, fresh_only)
        read = self._made(await self._get_or_load(id, loader, dump, True, *demands))
        if read is None:
            await self._removed(id)
            told = await self._get_or_load(id, loader, dump, True, *demands)
            read = Read(self._form.load(told[0]), *told[1:])
        return read

    async def get_or_load_each(self, ids, loader, **demands):
        ids = list(ids)
        found = await Region.get_or_load_each(self, ids, loader, **demands)
        misfits = [id for id, read in found.items() if not self._is_made(found, id, read)]
        if misfits:
            for id in misfits:
                await self._removed(id)
            again = await Region.get_or_load_each(self, misfits, loader, **demands)
            for id, read in again.items():
                found[id] = replace(read, value=self._form.load(read.value)) if isinstance(read, Read) else read
        return found

    def _is_made(self, found, id, read):
        """Puts the read of a value of the class in the read's place; false if it is to be loaded again."""
        if isinstance(read, Read):
            try:
                found[id] = self._remade(read)
            except UndecodableError as error:
                found[id] = error
            return found[id] is not None
        return True

    async def get_many(self, ids):
        ids = list(ids)
        found = zip(ids, await self._get_many(ids))
        reads = {id: self._made((told[0], "backend", False, "unknown", None, told[1])) for id, told in found if told}
        return {id: read.value for id, read in reads.items() if read is not None}

    def set(self, id, value, *, ttl=None, nx=False, xx=False, newer_by=None):
        return _RegionCore.set(self, id, self._form.dump(value), ttl=ttl, nx=nx, xx=xx, newer_by=newer_by)

    def set_many(self, entries):
        return _RegionCore.set_many(self, {id: self._form.dump(value) for id, value in dict(entries).items()})


_NOTHING = object()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _region_of(cache: Cache, name: Any, ttl: Any, options: dict[str, Any]) -> Region[Any]:
    model, share = options.pop("model", None), options.pop("share", False)
    if isinstance(name, type):
        name, model = _snake(name.__name__), name
    opened = cache._region(name, ttl, share, options)
    if model is None:
        return Region(opened)
    return _ModelRegion(opened, models.form_of(model), options.get("undecodable", "error"))
