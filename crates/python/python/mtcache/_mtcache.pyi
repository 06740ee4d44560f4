"""The extension module, as the rest of the package sees it."""

from collections.abc import Callable, Coroutine, Generator, Iterable
from datetime import timedelta
from os import PathLike
from typing import Any, Generic, TypeVar, final, overload

from typing_extensions import disjoint_base

from .cache import Cache

_T_co = TypeVar("_T_co", covariant=True)
_D = TypeVar("_D")

_Id = str | int | tuple[str | int, ...]
_Seconds = float | timedelta

__version__: str

@final
class Operation(Coroutine[Any, Any, _T_co], Generic[_T_co]):
    """A call under way. Awaited, or made a task, it runs; ``wait`` runs it without a loop."""

    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def __iter__(self) -> Generator[Any, None, _T_co]: ...
    def __next__(self) -> Any: ...
    @property
    def __name__(self) -> str: ...
    @property
    def __qualname__(self) -> str: ...
    @property
    def cr_running(self) -> bool: ...
    def send(self, _value: Any) -> Any: ...
    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...
    def wait(self) -> _T_co:
        """Waits for the result in this thread, without a loop."""

def encode(value: Any) -> bytes:
    """The stored form of a value, as the cache would write it."""

def decode(stored: bytes) -> Any:
    """The value of a stored form, as the cache would read it."""

def hot_keys(path: str | PathLike[str]) -> list[tuple[str, ...]]:
    """The entries that a file names, one a line: what follows the region's name in the key (``BTC``, or ``BTC:1h`` for one of two
    parts). Lines that are empty or begin with ``#`` are passed over."""

def _after_fork_in_child() -> None: ...
def _send_waiting(coroutine: Any) -> Any: ...
def _waits_here() -> bool: ...
def _interpreter_ends() -> None: ...
def _open(kind: type[Cache], url: str, options: dict[str, Any]) -> Operation[Cache]: ...

@disjoint_base
class _Core:
    def __new__(cls, opened: Any) -> _Core: ...
    @property
    def closed(self) -> bool: ...
    @property
    def prefix(self) -> str: ...
    @property
    def is_connected(self) -> bool: ...
    @property
    def near_state(self) -> str:
        """How it stands with the connection that tells of changes elsewhere: ``idle``, ``waiting``, ``on`` or ``refused``."""
    @property
    def breaker(self) -> str:
        """The circuit breaker: ``closed``, ``open`` or ``half_open``."""
    def close(self) -> None:
        """Lets go of the backend. What is under way goes on to its end; everything else is refused."""
    def near_size(self) -> tuple[int, int]:
        """Values in the near cache, and their bytes."""
    def pending_invalidations(self) -> tuple[int, int]:
        """Keys, and whole regions, that wait to be invalidated in the backend."""
    def stats(self) -> dict[str, dict[str, float]]:
        """The counters by region; what is of no region is under ``keys``."""
    def stale_reads(self) -> dict[str, float]:
        """How long after a write the near cache of this process served what was there before: ``count``, and ``p50``, ``p99`` and ``max`` in
        seconds."""
    def mode(self, region: str) -> str:
        """Whether the regions of this name are ``on``, in ``shadow`` or ``killed``; ``KeyError`` if none was ever opened."""
    def set_mode(self, region: str, mode: str) -> None: ...
    def full_key(self, key: str) -> str:
        """The key in the backend, with the prefix."""
    def invalidate_tag(self, *tags: str) -> Operation[None]:
        """Invalidates all that carries one of these tags, in one step. See :meth:`Region.tagged`."""
    def published_stats(self) -> Operation[dict[str, Any]]:
        """The counters of all processes that publish theirs: their sums by region under ``regions``, each under ``processes``. Walks the
        whole database: for a console that asks every few seconds."""
    def probe_stale_reads(self) -> Operation[float | None]:
        """Measures once how long after a write the near cache serves what was there before. None where the near cache is off."""
    def ping(self) -> Operation[bool]: ...
    def flush_database(self) -> Operation[None]:
        """Deletes every key of the database, also those that are not of this cache."""
    def command(self, *words: Any) -> Operation[Any]:
        """Sends a command by its words. Keys in it are as they are in the backend, see :meth:`full_key`; replies are bytes, ints and lists."""
    @overload
    def get(self, key: str) -> Operation[Any]: ...
    @overload
    def get(self, key: str, default: _D) -> Operation[Any | _D]: ...
    def get_bytes(self, key: str) -> Operation[bytes | None]:
        """The stored bytes themselves."""
    def delete(self, *keys: str) -> Operation[int]: ...
    def exists(self, *keys: str) -> Operation[int]: ...
    def expire(self, key: str, ttl: _Seconds) -> Operation[bool]: ...
    def ttl(self, key: str) -> Operation[float | None]:
        """Seconds left; infinite without an expiry, None if the key is absent."""
    def increment(self, key: str, by: int = 1) -> Operation[int]: ...
    def decrement(self, key: str, by: int = 1) -> Operation[int]: ...
    def hget(self, key: str, field: str, default: Any = None) -> Operation[Any]: ...
    def hgetall(self, key: str) -> Operation[dict[str, Any]]: ...
    def hdel(self, key: str, *fields: str) -> Operation[int]: ...
    def hlen(self, key: str) -> Operation[int]: ...
    def hincrby(self, key: str, field: str, by: int = 1) -> Operation[int]: ...
    def zadd(self, key: str, mapping: dict[Any, float], nx: bool = False, xx: bool = False) -> Operation[int]: ...
    def zrange(
        self, key: str, start: int = 0, end: int = -1, withscores: bool = False, descending: bool = False
    ) -> Operation[list[Any]]: ...
    def zrange_by_score(
        self,
        key: str,
        min: float | str,
        max: float | str,
        start: int = 0,
        num: int | None = None,
        withscores: bool = False,
        descending: bool = False,
    ) -> Operation[list[Any]]:
        """Bounds are numbers, ``"-inf"``, ``"+inf"``, or ``"(5"`` for what lies beyond 5."""
    def zrem(self, key: str, *removed: Any) -> Operation[int]: ...
    def zremrangebyrank(self, key: str, start: int, end: int) -> Operation[int]: ...
    def zremrangebyscore(self, key: str, min: float | str, max: float | str) -> Operation[int]: ...
    def zcard(self, key: str) -> Operation[int]: ...
    def zcount(self, key: str, min: float | str, max: float | str) -> Operation[int]: ...
    def zscore(self, key: str, member: Any) -> Operation[float | None]: ...
    def zincrby(self, key: str, amount: float, member: Any) -> Operation[float]: ...
    def _health(self) -> dict[str, Any]: ...
    def _events(self) -> Any: ...
    def _region(self, name: str, ttl: _Seconds, share: bool, options: dict[str, Any]) -> Any: ...
    def _trading_table(self) -> list[tuple[str, str, float, float]]: ...
    def _signals(self) -> Any: ...
    def _sessions(self, absolute_life: _Seconds | None = None) -> Any: ...

@disjoint_base
class _RegionCore:
    def __new__(cls, opened: Any, *_rest: Any) -> _RegionCore: ...
    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> str:
        """``on``, ``shadow`` (the loader is served and compared with the cache) or ``killed`` (straight to the loader), for all regions of
        this name in this process."""
    @mode.setter
    def mode(self, mode: str) -> None: ...
    def stats(self) -> dict[str, float]:
        """The counters of all regions of this name."""
    def invalidate(self, id: _Id) -> Operation[bool]:
        """Removes an entry; no load that began before can store it again. True if it was there."""
    def invalidate_under(self, id: _Id) -> Operation[int]:
        """Removes an entry and every entry below it, of whose ids its parts are the first. Walks the whole database."""
    def invalidate_all(self) -> Operation[int]:
        """Removes every entry of the region. Walks the whole database; a tag does it in one step."""
    def touch(self, id: _Id) -> Operation[bool]:
        """Gives an entry the region's whole time to live again; false if it is not there."""
    def expire(self, id: _Id, ttl: _Seconds) -> Operation[bool]:
        """Gives an entry a new time to live; false if it is not there."""
    def time_left(self, id: _Id) -> Operation[float | None]:
        """Seconds left; infinite without an expiry, None if the entry is absent."""
    def _reload(self, **options: Any) -> tuple[list[str], list[str]]: ...
    def _tagged(self, tags: list[str]) -> Any: ...
    def _reads_schema(self, schema: int, upgrade: Callable[[Any], Any]) -> Any: ...
    def _count_undecodable(self, counted: str | None) -> None: ...
    def _read(
        self,
        id: _Id,
        with_age: bool,
        max_age: _Seconds | None,
        backend_timeout: _Seconds | None,
        deadline: _Seconds | None,
        fresh_only: bool,
    ) -> Operation[Any]: ...
    def _get_or_load(
        self,
        id: _Id,
        loader: Callable[..., Any],
        form: Callable[[Any], Any] | None,
        as_read: bool,
        max_age: _Seconds | None,
        backend_timeout: _Seconds | None,
        deadline: _Seconds | None,
        fresh_only: bool,
    ) -> Operation[Any]: ...
    def _get_or_reload(
        self,
        id: _Id,
        loader: Callable[..., Any],
        form: Callable[[Any], Any] | None,
        max_age: _Seconds | None,
        backend_timeout: _Seconds | None,
        deadline: _Seconds | None,
        fresh_only: bool,
    ) -> Operation[Any]: ...
    def _get_many(self, ids: Iterable[_Id]) -> Operation[Any]: ...
    def _get_or_load_each(
        self,
        ids: Iterable[_Id],
        loader: Callable[..., Any],
        form: Callable[[Any], Any] | None,
        max_age: _Seconds | None,
        backend_timeout: _Seconds | None,
        deadline: _Seconds | None,
        fresh_only: bool,
    ) -> Operation[Any]: ...
    def _warm_up(
        self,
        ids: Iterable[_Id],
        loader: Callable[..., Any] | None,
        form: Callable[[Any], Any] | None,
        at_once: int,
        per_second: int,
        progress: Callable[..., object] | None,
    ) -> Operation[Any]: ...
