"""The cache for scripts, notebooks and threads: the same calls, without ``await``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ._mtcache import Operation, _send_waiting
from .cache import Cache, connect
from .region import Region
from .trading import Sessions, Signals

_CALLS = (
    "ping info flush_database command get get_bytes get_many set set_many delete delete_many exists expire ttl increment decrement "
    "hset hget hgetall hdel hlen hincrby zadd zrange zrange_by_score zrem zremrangebyrank zremrangebyscore zcard zcount zscore "
    "zincrby wait_connected invalidate_tag published_stats probe_stale_reads"
).split()
_AT_ONCE = "stats near_size pending_invalidations health stale_reads mode set_mode full_key close".split()
_REGION_CALLS = (
    "get get_many read set set_many delete invalidate invalidate_under invalidate_all touch expire time_left"
).split()
_REGION_AT_ONCE = "peek key stats reload".split()
_SIGNAL_CALLS = "push recent count clear".split()
_SESSION_CALLS = "create get list update revoke revoke_all".split()


class SyncRegion:
    """A region without ``await``. Made by :meth:`SyncCache.region`. Any thread may use it.

    Threads that miss one entry together share one call of the loader, which runs in a thread of its own.

    >>> import mtcache
    >>> with mtcache.connect_sync("embedded://") as cache:
    ...     prices = cache.region("price", ttl=30)
    ...     prices.get_or_load("BTC", lambda: {"price": 45000.5})
    ...     prices.get_or_load_many(["BTC", "ETH", "NONE"], lambda missing: {"ETH": {"price": 2500.0}})
    ...     prices.read("BTC").source
    {'price': 45000.5}
    {'BTC': {'price': 45000.5}, 'ETH': {'price': 2500.0}, 'NONE': None}
    'backend'
    """

    def __init__(self, region: Region[Any]) -> None:
        self._region = region

    @property
    def name(self):
        return self._region.name

    @property
    def mode(self):
        return self._region.mode

    @mode.setter
    def mode(self, mode):
        self._region.mode = mode

    def get_or_load(self, id, loader, **demands):
        return self.read_or_load(id, loader, **demands).value

    def read_or_load(self, id, loader, **demands):
        return _run(self._region.read_or_load(id, loader, **demands))

    def get_or_reload(self, id, loader, **demands):
        return _run(self._region.get_or_reload(id, loader, **demands))

    def get_or_load_many(self, ids, loader, **demands):
        return _run(self._region.get_or_load_many(ids, loader, **demands))

    def get_or_load_each(self, ids, loader, **demands):
        return _run(self._region.get_or_load_each(ids, loader, **demands))

    def warm_up(self, ids, loader=None, *, at_once=16, per_second=1000):
        return _run(self._region.warm_up(ids, loader, at_once=at_once, per_second=per_second))

    def tagged(self, *tags):
        return SyncRegion(self._region.tagged(*tags))

    def reads_schema(self, schema, upgrade):
        return SyncRegion(self._region.reads_schema(schema, upgrade))


class SyncSignals:
    """The buffer of recent signals, without ``await``. Made by :meth:`SyncCache.signals`.

    >>> import mtcache
    >>> with mtcache.connect_sync("embedded://") as cache:
    ...     signals = cache.signals()
    ...     _ = signals.push({"symbol": "BTC", "signal_type": "BUY", "strength": 0.85})
    ...     _ = signals.push({"symbol": "ETH", "signal_type": "SELL", "strength": 0.5})
    ...     [found.signal["symbol"] for found in signals.recent(10, signal_type="BUY")], signals.count()
    (['BTC'], 2)
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals


class SyncSessions:
    """Sessions of users, without ``await``. Made by :meth:`SyncCache.sessions`.

    >>> import mtcache
    >>> with mtcache.connect_sync("embedded://") as cache:
    ...     sessions = cache.sessions()
    ...     token, session = sessions.create("ada", {"role": "admin"})
    ...     sessions.get(token).data, sessions.revoke(token), sessions.get(token)
    ({'role': 'admin'}, True, None)
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions


class SyncCache:
    """A cache without ``await``. Made by :func:`mtcache.connect_sync`. Any thread may use it.

    >>> import mtcache
    >>> with mtcache.connect_sync("embedded://") as cache:
    ...     cache.set("a", {"b": 1})
    ...     cache.get("a")
    True
    {'b': 1}
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def region(self, name, *, ttl, **options):
        return SyncRegion(self._cache.region(name, ttl=ttl, **options))

    def trading_region(self, name, **options):
        return SyncRegion(self._cache.trading_region(name, **options))

    def signals(self):
        return SyncSignals(self._cache.signals())

    def sessions(self, *, absolute_life=None):
        return SyncSessions(self._cache.sessions(absolute_life=absolute_life))

    def events(self):
        return _heard(self._cache._events())

    def push_signal(self, signal, *, max_signals=1000):
        return self.signals().push(signal, max_signals=max_signals)

    def recent_signals(self, count=100, **filters):
        return self.signals().recent(count, **filters)

    @property
    def prefix(self):
        return self._cache.prefix

    @property
    def breaker(self):
        return self._cache.breaker

    @property
    def near_state(self):
        return self._cache.near_state

    @property
    def is_connected(self) -> bool:
        return self._cache.is_connected

    @property
    def closed(self) -> bool:
        return self._cache.closed

    def __enter__(self) -> SyncCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _heard(stream: Any) -> Iterator[dict[str, Any]]:
    while (event := stream.next().wait()) is not None:
        yield event


def _run(coroutine: Any) -> Any:
    """The result of a coroutine that awaits nothing but calls of this package."""
    if isinstance(coroutine, Operation):
        return coroutine.wait()
    try:
        _send_waiting(coroutine)
    except StopIteration as end:
        return end.value
    raise RuntimeError("this needs a loop")


def _forward(owner: type, inside: str, name: str, finish: Any) -> None:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return finish(getattr(getattr(self, inside), name)(*args, **options))

    asynchronous = {"_cache": Cache, "_region": Region, "_signals": Signals, "_sessions": Sessions}[inside]
    call.__name__ = name
    call.__qualname__ = f"{owner.__name__}.{name}"
    call.__doc__ = f"As :meth:`mtcache.{asynchronous.__name__}.{name}`, in this thread."
    call.__signature__ = inspect.signature(getattr(asynchronous, name))  # type: ignore[attr-defined]
    setattr(owner, name, call)


def _as_it_is(result: Any) -> Any:
    return result


for _owner, _inside, _calls, _at_once in [
    (SyncCache, "_cache", _CALLS, _AT_ONCE),
    (SyncRegion, "_region", _REGION_CALLS, _REGION_AT_ONCE),
    (SyncSignals, "_signals", _SIGNAL_CALLS, []),
    (SyncSessions, "_sessions", _SESSION_CALLS, []),
]:
    for _name in _calls:
        _forward(_owner, _inside, _name, _run)
    for _name in _at_once:
        _forward(_owner, _inside, _name, _as_it_is)


def connect_sync(url: str = "redis://localhost:6379", **options: Any) -> SyncCache:
    """Opens a cache for synchronous code; options as :func:`mtcache.connect`."""
    return SyncCache(connect(url, **options).wait())
