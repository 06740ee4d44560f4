"""The cache: what a service opens once and shares."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from typing import Any, Final

from ._mtcache import _Core, _interpreter_ends, _open
from .errors import ForkedError
from .region import Region, _region_of
from .trading import Sessions, Signals

DEFAULT_TTL: Final = 3600


class _Missing:
    """Stands for "nothing is there" where None could be a value."""

    def __repr__(self) -> str:
        return "mtcache.MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()

@dataclass(frozen=True)
class LastError:
    """An error that the cache has met."""

    #: The class of :mod:`mtcache.errors`, without its ``Error``.
    kind: str
    message: str
    #: How long ago, in seconds.
    ago: float
    #: How often it was met on end.
    times: int


@dataclass(frozen=True)
class Health:
    """How a cache is. Made by :meth:`Cache.health`."""

    #: ``ok``, ``degraded`` or ``down``.
    level: str
    #: What is not as it should be, for people.
    reasons: list[str]
    #: Where the backend is, without credentials.
    backend: str
    backend_is_up: bool
    #: The circuit breaker: ``closed``, ``open`` or ``half_open``.
    breaker: str
    #: How it stands with the connection that keeps the near cache honest.
    tracking: str
    #: Keys, and whole regions, that wait to be invalidated in the backend.
    pending_keys: int
    pending_regions: int
    #: Values in the near cache, and their bytes.
    near_entries: int
    near_bytes: int
    #: Loads that were refused because too many waited.
    loads_shed: int
    #: Checked reads of the near cache that were wrong.
    near_violations: int
    #: Regions that are not on, with their modes.
    switched: dict[str, str]
    #: The newest first.
    last_errors: list[LastError]

    @property
    def is_ok(self) -> bool:
        """True if nothing is amiss."""
        return self.level == "ok"


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


class Cache(_Core):
    """A cache over one backend. Made by :func:`mtcache.connect`."""

    def __init__(self, opened: Any) -> None:
        self._trading_regions: dict[str, Region[Any]] = {}
        _caches.add(self)

    @staticmethod
    def connect(url: str = "redis://localhost:6379", **options: Any) -> Connecting:
        """As :func:`mtcache.connect`."""
        return connect(url, **options)

    async def __aenter__(self) -> Cache:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set(self, key, value, ttl=DEFAULT_TTL, *, nx=False, xx=False, newer_by=None):
        return _set(self, key, value, ttl, nx, xx, newer_by)

    def set_many(self, entries, ttl=DEFAULT_TTL):
        return _set_many(self, dict(entries), ttl)

    def hset(self, key, mapping, ttl=DEFAULT_TTL, *, keep_expiry=False):
        return _hset(self, key, dict(mapping), ttl, keep_expiry)

    def get_many(self, keys):
        return _get_many(self, list(keys))

    def delete_many(self, keys):
        return self.delete(*keys)

    def info(self, section="default"):
        return _info(self, section)

    def wait_connected(self, patience=5.0):
        return _wait_connected(self, patience)

    def region(self, name, *, ttl, **options):
        return _region_of(self, name, ttl, options)

    def trading_region(self, name, **options):
        if name not in self._trading_regions or options:
            for known, base, ttl, stale in self._trading_table():
                if known == name:
                    policy = {"ttl": ttl, "key_base": base, "stale": stale, **options}
                    region = self.region(name, **policy)
                    if options:
                        return region
                    self._trading_regions[name] = region
                    break
            else:
                raise KeyError(f"the table has no region {name!r}")
        return self._trading_regions[name]

    def health(self):
        found = self._health()
        found["switched"] = dict(found["switched"])
        found["last_errors"] = [_last_error(**error) for error in found["last_errors"]]
        return Health(**found)

    def signals(self):
        return Signals(self._signals())

    def sessions(self, *, absolute_life=None):
        return Sessions(self._sessions(absolute_life))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        stream = self._events()
        while True:
            event = await stream.next()
            if event is None:
                return
            yield event


#: Kinds whose class has another name.
_CLASSES = {"LoaderPanicked": "LoaderLost", "OutOfMemory": "BackendMemory", "Timeout": "BackendTimeout"}


def _last_error(kind, message, ago, times):
    return LastError(_CLASSES.get(kind, kind), message, ago["secs"] + ago["nanos"] / 1e9, times)


_set = _Core.set
_set_many = _Core.set_many
_hset = _Core.hset
_get_many = _Core.get_many
_info = _Core.info
_wait_connected = _Core.wait_connected


class Connecting:
    """A cache that is being opened: to be awaited, or entered with ``async with``."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._url = url
        self._options = options
        self._cache: Cache | None = None

    def _operation(self) -> Any:
        return _open(Cache, self._url, self._options)

    def __await__(self) -> Generator[Any, None, Cache]:
        return self._operation().__await__()

    def wait(self) -> Cache:
        """Opens it from synchronous code."""
        return self._operation().wait()

    async def __aenter__(self) -> Cache:
        self._cache = await self
        return self._cache

    async def __aexit__(self, *_: object) -> None:
        if self._cache is not None:
            self._cache.close()


def connect(
    url: str = "redis://localhost:6379",
    *,
    prefix: str = "",
    connect_timeout: float = 2.0,
    response_timeout: float = 2.0,
    max_in_flight: int = 65_536,
    client_name: str = "mtcache",
    near_max_bytes: int = 64 * 1024 * 1024,
    near_heartbeat: float = 1.0,
    **options: Any,
) -> Connecting:
    """Opens a cache. A backend that is down is no error: the cache starts without it and uses it once it is there.

    :param url: ``embedded://`` (in this process), ``embedded:///directory`` (kept on disk), ``redis://``, ``unix://`` and the
        other forms of the Rust library.
    :param prefix: What every key begins with, such as ``staging:``.
    :param connect_timeout: Longest wait for a connection, in seconds.
    :param response_timeout: Longest wait for the backend's answer, in seconds.
    :param max_in_flight: Calls under way at once before more are shed.
    :param near_max_bytes: Most bytes kept in this process, for the regions with ``near=True`` together.
    :param near_heartbeat: How long a change may go unheard before what is kept here is not used, in seconds.
    :param backoff: First and longest pause between attempts to connect, in seconds; ``(0.05, 2.0)``.
    :param breaker: After how many connections on which nothing was answered calls are refused at once, for how long at first and at the
        most; ``(3, 0.5, 10.0)``. With 0 connections never.
    :param topology_refresh: How often a cluster is asked who serves what; 10 seconds.
    :param publish_stats: How often the counters of this process are published in the backend, for :meth:`Cache.published_stats`. Not
        unless it is given.
    :param probe_stale_reads: How often :meth:`Cache.probe_stale_reads` is done by itself. Not unless it is given.

    Certificates of ``rediss://`` are named in the URL.

    >>> import asyncio, mtcache
    >>> async def main():
    ...     cache = await mtcache.connect("embedded://")
    ...     await cache.set("a", 1)
    ...     print(await cache.get("a"), await cache.get("b"), await cache.get("b", mtcache.MISSING))
    ...     cache.close()
    >>> asyncio.run(main())
    1 None mtcache.MISSING
    """
    return Connecting(
        url,
        {
            "prefix": prefix,
            "connect_timeout": connect_timeout,
            "response_timeout": response_timeout,
            "max_in_flight": max_in_flight,
            "client_name": client_name,
            "near_max_bytes": near_max_bytes,
            "near_heartbeat": near_heartbeat,
            **options,
        },
    )


@atexit.register
def _close_all() -> None:
    _interpreter_ends()
    # What an engine in this process has not written yet is written when it is closed.
    for cache in list(_caches):
        try:
            cache.close()
        except ForkedError:
            pass
