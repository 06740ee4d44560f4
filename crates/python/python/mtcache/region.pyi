from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from ._mtcache import Operation, _RegionCore
from .errors import CacheError
from .models import Form

_T = TypeVar("_T")
_D = TypeVar("_D")

_Id = str | int | tuple[str | int, ...]
#: An id as callers keep it: what came in comes out as a key of the result.
_I = TypeVar("_I", bound=_Id)
_Loader = Callable[[], Awaitable[_T | None]] | Callable[[], _T | None]
#: Is given the ids that are missing and answers with those that the source has.
_BatchLoader = Callable[[list[_I]], Awaitable[Mapping[_I, _T | None]]] | Callable[[list[_I]], Mapping[_I, _T | None]]
_NamedLoader = Callable[[_I], Awaitable[_T | None]] | Callable[[_I], _T | None]
_Seconds = float | timedelta

@dataclass(frozen=True)
class Framing:
    """How the values of a framed region are stored: behind a small header that keeps their exact age, their tags and their schema."""

    compression: str = "none"
    compress_above: int = 1024
    schema: int = 1
    newer: str = "miss"
    plain: str = "read"
    tags: Iterable[str] = ()

@dataclass(frozen=True)
class Read(Generic[_T]):
    """A value with what is known of it."""

    value: _T
    source: str
    is_stale: bool
    age_bound: str
    age: float | None
    _counted: str | None = ...

@dataclass(frozen=True)
class Previous(Generic[_T]):
    """What is known of an entry that is to be loaded."""

    value: _T
    validator: bytes | None = None

@dataclass(frozen=True)
class Loaded(Generic[_T]):
    """What a loader of :meth:`Region.get_or_reload` brings."""

    value: _T | None = None
    ttl: _Seconds | None = None
    validator: bytes | str | None = None
    is_kept: bool = True
    is_modified: bool = True
    @classmethod
    def not_modified(cls, *, ttl: _Seconds | None = None, validator: bytes | str | None = None) -> Loaded[Any]: ...

@dataclass(frozen=True)
class WarmUpReport:
    """What a warm-up has done, so far or in the end."""

    asked: int
    found: int
    loaded: int
    missing: int
    failed: int

class Region(_RegionCore, Generic[_T]):
    """One kind of data. Made by :meth:`Cache.region`. An entry is named by a text, an int, or a tuple of them.

    What a read may demand, all in seconds: ``max_age``, what is older or of unknown age is a miss; ``backend_timeout``, the longest wait
    for the backend, after which the loader is asked; ``deadline``, how long the whole read may take, after which it is a
    :class:`DeadlineError`; ``fresh_only``, nothing past its time to live is taken, whatever the region allows.
    """

    _form: Form | None
    _misfit: str
    def __init__(self, opened: Any, form: Form | None = None, misfit: str = "error") -> None: ...
    def key(self, id: _Id) -> str:
        """The key in the backend."""
    @overload
    def peek(self, id: _Id) -> _T | None: ...
    @overload
    def peek(self, id: _Id, default: _D) -> _T | _D:
        """What is kept in this process's memory, at once: no await, no word to the backend."""
    @overload
    def get(
        self,
        id: _Id,
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> Coroutine[Any, Any, _T | None]: ...
    @overload
    def get(
        self,
        id: _Id,
        default: _D,
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> Coroutine[Any, Any, _T | _D]:
        """An entry; the default is a miss, and nothing else is."""
    def get_or_load(
        self,
        id: _Id,
        loader: _Loader[_T],
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> Coroutine[Any, Any, _T]:
        """An entry, from its loader if it is not there. However many ask at once, the loader is called once, and its load goes on if they
        leave. A loader that is no coroutine function runs in a thread."""
    async def read(
        self,
        id: _Id,
        *,
        max_age: _Seconds | None = None,
        with_age: bool = True,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> Read[_T] | None:
        """As ``get``, with where the value came from, its age and whether it is stale."""
    async def read_or_load(
        self,
        id: _Id,
        loader: _Loader[_T],
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> Read[_T]:
        """As ``get_or_load``, with where the value came from, its age and whether it is stale."""
    async def get_or_reload(
        self,
        id: _Id,
        loader: Callable[[Previous[_T] | None], Awaitable[Loaded[_T] | _T | None]]
        | Callable[[Previous[_T] | None], Loaded[_T] | _T | None],
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> Read[_T]:
        """As ``read_or_load``, with a loader that is told what was known before and can say more than a value: how long it lives, what to ask
        the source with later, that nothing has changed."""
    async def get_many(self, ids: Iterable[_I]) -> dict[_I, _T]:
        """Those that are there."""
    async def get_or_load_many(
        self,
        ids: Iterable[_I],
        loader: _BatchLoader[_I, _T],
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> dict[_I, _T]:
        """Several entries; those that are missing come from one call of the loader, which gets their ids in a list. What it leaves out is
        None in the result, and is remembered as such for ``none_ttl``. Raises what any of them failed with."""
    async def get_or_load_each(
        self,
        ids: Iterable[_I],
        loader: _BatchLoader[_I, _T],
        *,
        max_age: _Seconds | None = None,
        backend_timeout: _Seconds | None = None,
        deadline: _Seconds | None = None,
        fresh_only: bool = False,
    ) -> dict[_I, Read[_T] | CacheError]:
        """The same, with what came of each id: a read, or the error."""
    async def warm_up(
        self,
        ids: Iterable[_I],
        loader: _NamedLoader[_I, _T] | None = None,
        *,
        at_once: int = 16,
        per_second: int = 1000,
        progress: Callable[[WarmUpReport], object] | None = None,
    ) -> WarmUpReport:
        """Reads entries before anybody asks for them, so that they are near; with a loader, which is called with the id, those that are
        missing are loaded. Errors are counted. :func:`mtcache.hot_keys` reads ids from a file."""
    def set(
        self,
        id: _Id,
        value: _T | None,
        *,
        ttl: _Seconds | None = None,
        nx: bool = False,
        xx: bool = False,
        newer_by: str | None = None,
    ) -> Coroutine[Any, Any, bool]:
        """Sets an entry; says whether its condition let it be stored. ``ttl`` may be shorter than the region's, never longer.
        ``newer_by`` names the field of the value with its time: a stored value that is newer stays."""
    def set_many(self, entries: Mapping[Any, _T | None]) -> Operation[None]: ...
    def delete(self, id: _Id) -> Operation[bool]: ...
    def tagged(self, *tags: str) -> Region[_T]:
        """This region, with these tags besides those of its framing on all that is stored through what is returned. The region has to be
        framed. What tags an entry has should follow from its id."""
    def reads_schema(self, schema: int, upgrade: Callable[[Any], Any]) -> Region[_T]:
        """This region, reading values of an older schema too: ``upgrade`` makes of them what is stored now, before a model sees them."""
    def reload(self, **options: Any) -> tuple[list[str], list[str]]:
        """Changes options of all regions of this name while they are open, of those that :meth:`Cache.region` takes. Gives the names of what
        has changed, and of what would only if the region were opened anew."""
