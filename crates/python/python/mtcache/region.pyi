from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from ._mtcache import _RegionCore
from .models import Form

T = TypeVar("T")
D = TypeVar("D")

Id = str | int | tuple[str | int, ...]
Loader = Callable[[], Awaitable[T | None]] | Callable[[], T | None]

@dataclass(frozen=True)
class Read(Generic[T]):
    value: T
    source: str
    is_stale: bool
    age_bound: str
    age: float | None

class Region(_RegionCore, Generic[T]):
    """One kind of data. Made by :meth:`Cache.region`. An entry is named by a text, an int, or a tuple of them."""

    _form: Form | None
    def key(self, id: Id) -> str: ...
    @overload
    def peek(self, id: Id) -> T | None: ...
    @overload
    def peek(self, id: Id, default: D) -> T | D:
        """What is kept in this process's memory, at once."""
    @overload
    def get(self, id: Id, *, max_age: float | timedelta | None = None) -> Coroutine[Any, Any, T | None]: ...
    @overload
    def get(self, id: Id, default: D, *, max_age: float | timedelta | None = None) -> Coroutine[Any, Any, T | D]: ...
    def get_or_load(
        self, id: Id, loader: Loader[T], *, max_age: float | timedelta | None = None
    ) -> Coroutine[Any, Any, T]:
        """An entry, from its loader if it is not there. However many ask at once, the loader is called once."""
    async def read(
        self, id: Id, *, max_age: float | timedelta | None = None, with_age: bool = True
    ) -> Read[T] | None: ...
    async def read_or_load(
        self, id: Id, loader: Loader[T], *, max_age: float | timedelta | None = None
    ) -> Read[T]: ...
    async def get_many(self, ids: Iterable[Id]) -> dict[Id, T]: ...
    def set(
        self,
        id: Id,
        value: T | None,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        newer_by: str | None = None,
    ) -> Coroutine[Any, Any, bool]: ...
    def set_many(self, entries: Mapping[Any, T | None]) -> Coroutine[Any, Any, None]: ...
    def invalidate(self, id: Id) -> Coroutine[Any, Any, bool]: ...
    def delete(self, id: Id) -> Coroutine[Any, Any, bool]: ...
    def touch(self, id: Id) -> Coroutine[Any, Any, bool]: ...
    def time_left(self, id: Id) -> Coroutine[Any, Any, float | None]: ...
