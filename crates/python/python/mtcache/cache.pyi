from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, TypeVar, overload

from ._mtcache import Operation, _Core
from .region import Region
from .trading import Sessions, Signals

M = TypeVar("M")

DEFAULT_TTL: Final = 3600

class _Missing:
    def __bool__(self) -> bool: ...

MISSING: Final[_Missing]

class Cache(_Core):
    """A cache over one backend. Made by :func:`mtcache.connect`."""

    @staticmethod
    def connect(url: str = ..., **options: Any) -> Connecting: ...
    async def __aenter__(self) -> Cache: ...
    async def __aexit__(self, *_: object) -> None: ...
    def __enter__(self) -> Cache: ...
    def __exit__(self, *_: object) -> None: ...
    def set(
        self,
        key: str,
        value: Any,
        ttl: float | timedelta | None = 3600,
        *,
        nx: bool = False,
        xx: bool = False,
        newer_by: str | None = None,
    ) -> Operation[bool]:
        """Sets a key; says whether its condition let it be stored. ``ttl=None``: it does not expire."""
    def set_many(self, entries: Mapping[str, Any], ttl: float | timedelta = 3600) -> Operation[None]: ...
    def hset(self, key: str, mapping: Mapping[str, Any], ttl: float | timedelta = 3600) -> Operation[int]: ...
    def get_many(self, keys: Iterable[str]) -> Operation[dict[str, Any]]:
        """The values that are there, by their keys."""
    def delete_many(self, keys: Iterable[str]) -> Operation[int]: ...
    def info(self, section: str = "default") -> Operation[str]: ...
    def wait_connected(self, patience: float | timedelta = 5.0) -> Operation[bool]: ...
    @overload
    def region(
        self,
        name: str,
        *,
        ttl: float | timedelta,
        model: None = None,
        key_base: str | None = None,
        stale: float | timedelta = 0,
        none_ttl: float | timedelta | None = 5.0,
        ttl_jitter: float = 0.0,
        undecodable: str = "error",
        near: bool = False,
        share: bool = False,
        load_timeout: float | timedelta = 30.0,
        max_loads: int = 256,
        max_waiting_loads: int = 10_000,
        max_load_wait: float | timedelta = 30.0,
    ) -> Region[Any]:
        """A region: one kind of data under one policy. Times are in seconds, or ``timedelta``."""
    @overload
    def region(self, name: type[M], *, ttl: float | timedelta, **options: Any) -> Region[M]: ...
    @overload
    def region(self, name: str, *, ttl: float | timedelta, model: type[M], **options: Any) -> Region[M]: ...
    def trading_region(self, name: str, **options: Any) -> Region[Any]:
        """A region of the platform's table by its name, such as ``market_data``; ``KeyError`` if it has none."""
    def signals(self) -> Signals: ...
    def sessions(self, *, absolute_life: float | timedelta | None = None) -> Sessions: ...
    def events(self) -> AsyncIterator[dict[str, Any]]:
        """What happens from now on, each a dict with its ``kind``; ``missed`` if this was not read in time."""

class Connecting:
    def __init__(self, url: str, options: dict[str, Any]) -> None: ...
    def __await__(self) -> Generator[Any, None, Cache]: ...
    def wait(self) -> Cache: ...
    async def __aenter__(self) -> Cache: ...
    async def __aexit__(self, *_: object) -> None: ...

def connect(
    url: str = "redis://localhost:6379",
    *,
    prefix: str = "",
    connect_timeout: float = 2.0,
    response_timeout: float = 2.0,
    max_in_flight: int = 65_536,
    client_name: str = "mtcache",
    near_max_bytes: int = ...,
    near_heartbeat: float = 1.0,
) -> Connecting: ...
