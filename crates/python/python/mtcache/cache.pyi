from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar, overload

from ._mtcache import Operation, _Core
from .region import Framing, Region
from .trading import Sessions, Signals

_M = TypeVar("_M")
_Seconds = float | timedelta

DEFAULT_TTL: Final = 3600

class _Missing:
    def __bool__(self) -> bool: ...

MISSING: Final[_Missing]

@dataclass(frozen=True)
class LastError:
    """An error that the cache has met."""

    kind: str
    message: str
    ago: float
    times: int

@dataclass(frozen=True)
class Health:
    """How a cache is. Made by :meth:`Cache.health`."""

    level: str
    reasons: list[str]
    backend: str
    backend_is_up: bool
    breaker: str
    tracking: str
    pending_keys: int
    pending_regions: int
    near_entries: int
    near_bytes: int
    loads_shed: int
    near_violations: int
    switched: dict[str, str]
    last_errors: list[LastError]
    @property
    def is_ok(self) -> bool: ...

class Cache(_Core):
    """A cache over one backend. Made by :func:`mtcache.connect`. Any number of loops and threads may use it."""

    def __init__(self, opened: Any) -> None: ...
    @staticmethod
    def connect(url: str = "redis://localhost:6379", **options: Any) -> Connecting: ...
    async def __aenter__(self) -> Cache: ...
    async def __aexit__(self, *_: object) -> None: ...
    def __enter__(self) -> Cache: ...
    def __exit__(self, *_: object) -> None: ...
    def set(
        self,
        key: str,
        value: Any,
        ttl: _Seconds | None = 3600,
        *,
        nx: bool = False,
        xx: bool = False,
        newer_by: str | None = None,
    ) -> Operation[bool]:
        """Sets a key; says whether its condition let it be stored. ``ttl=None``: it does not expire."""
    def set_many(self, entries: Mapping[str, Any], ttl: _Seconds = 3600) -> Operation[None]: ...
    def hset(
        self, key: str, mapping: Mapping[str, Any], ttl: _Seconds = 3600, *, keep_expiry: bool = False
    ) -> Operation[int]:
        """Sets fields and gives the hash this time to live, or, with ``keep_expiry``, only if it has none yet."""
    def get_many(self, keys: Iterable[str]) -> Operation[dict[str, Any]]:
        """The values that are there, by their keys."""
    def delete_many(self, keys: Iterable[str]) -> Operation[int]: ...
    def info(self, section: str = "default") -> Operation[str]: ...
    def wait_connected(self, patience: _Seconds = 5.0) -> Operation[bool]: ...
    @overload
    def region(
        self,
        name: str,
        *,
        ttl: _Seconds,
        model: None = None,
        key_base: str | None = None,
        stale: _Seconds = 0,
        soft_timeout: _Seconds | None = None,
        stale_while_revalidate: bool = False,
        eager_refresh: float | None = None,
        xfetch_beta: float | None = None,
        none_ttl: _Seconds | None = 5.0,
        ttl_jitter: float = 0.0,
        undecodable: str = "error",
        near: bool = False,
        share: bool = False,
        check_every: int = 0,
        framed: bool | Framing = False,
        codec: str = "json",
        lease: _Seconds | None = None,
        load_timeout: _Seconds = 30.0,
        max_loads: int = 256,
        max_waiting_loads: int = 10_000,
        max_load_wait: _Seconds = 30.0,
        max_batch: int = 1000,
    ) -> Region[Any]:
        """A region: one kind of data under one policy. Times are in seconds, or ``timedelta``; docs/python.md has each option."""
    @overload
    def region(self, name: type[_M], *, ttl: _Seconds, **options: Any) -> Region[_M]: ...
    @overload
    def region(self, name: str, *, ttl: _Seconds, model: type[_M], **options: Any) -> Region[_M]: ...
    def trading_region(self, name: str, **options: Any) -> Region[Any]:
        """A region of the platform's table by its name, such as ``market_data``; ``KeyError`` if it has none."""
    def signals(self) -> Signals: ...
    def sessions(self, *, absolute_life: _Seconds | None = None) -> Sessions: ...
    def health(self) -> Health:
        """How this cache is now. Costs no call of the backend and never fails."""
    def events(self) -> AsyncIterator[dict[str, Any]]:
        """What happens from the first step on, each a dict with its ``kind``; ``missed`` if this was not read in time."""

class Connecting:
    def __init__(self, url: str, options: dict[str, Any]) -> None: ...
    def __await__(self) -> Generator[Any, None, Cache]: ...
    def wait(self) -> Cache:
        """Opens it from synchronous code."""
    async def __aenter__(self) -> Cache: ...
    async def __aexit__(self, *_: object) -> None: ...

def connect(
    url: str = "redis://localhost:6379",
    *,
    prefix: str = "",
    connect_timeout: _Seconds = 2.0,
    response_timeout: _Seconds = 2.0,
    max_in_flight: int = 65_536,
    client_name: str = "mtcache",
    near_max_bytes: int = ...,
    near_heartbeat: _Seconds = 1.0,
    backoff: tuple[_Seconds, _Seconds] = ...,
    breaker: tuple[int, _Seconds, _Seconds] = ...,
    topology_refresh: _Seconds = ...,
    publish_stats: _Seconds = ...,
    probe_stale_reads: _Seconds = ...,
) -> Connecting: ...
