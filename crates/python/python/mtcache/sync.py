"""The cache for scripts, notebooks and threads: the same calls, without ``await``."""

from __future__ import annotations

from typing import Any

from ._mtcache import Operation, _send_waiting
from .cache import Cache, connect
from .region import Region

_CALLS = (
    "ping info flush_database command get get_bytes get_many set set_many delete delete_many exists expire ttl increment decrement "
    "hset hget hgetall hdel hlen hincrby zadd zrange zrange_by_score zrem zremrangebyrank zremrangebyscore zcard zcount zscore "
    "zincrby wait_connected"
).split()
_REGION_CALLS = "get set invalidate invalidate_all touch time_left delete set_many".split()


class SyncRegion:
    """A region without ``await``. Made by :meth:`SyncCache.region`."""

    def __init__(self, region: Region[Any]) -> None:
        self._region = region
        self.name = region.name

    def peek(self, id, default=None):
        return self._region.peek(id, default)

    def key(self, id):
        return self._region.key(id)

    def stats(self):
        return self._region.stats()

    def get_many(self, ids):
        return _run(self._region.get_many(ids))

    def read(self, id, *, max_age=None, with_age=True):
        return _run(self._region.read(id, max_age=max_age, with_age=with_age))

    def get_or_load(self, id, loader, *, max_age=None):
        found = self._region._load_in_thread(id, loader, max_age).wait()
        form = self._region._form
        return found if form is None else form.load(found)


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

    def region(self, name, *, ttl=None, **options):
        return SyncRegion(self._cache.region(name, ttl=ttl, **options))

    def trading_region(self, name, **options):
        return SyncRegion(self._cache.trading_region(name, **options))

    def push_signal(self, signal, *, max_signals=1000):
        return self._cache.signals().push(signal, max_signals=max_signals).wait()

    def recent_signals(self, count=100, **filters):
        return _run(self._cache.signals().recent(count, **filters))

    def stats(self):
        return self._cache.stats()

    def near_size(self):
        return self._cache.near_size()

    @property
    def is_connected(self) -> bool:
        return self._cache.is_connected

    @property
    def closed(self) -> bool:
        return self._cache.closed

    def close(self) -> None:
        self._cache.close()

    def __enter__(self) -> SyncCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(coroutine: Any) -> Any:
    """The result of a coroutine that awaits nothing but calls of this package."""
    if isinstance(coroutine, Operation):
        return coroutine.wait()
    try:
        _send_waiting(coroutine)
    except StopIteration as end:
        return end.value
    raise RuntimeError("this needs a loop")


def _forward(owner: type, inside: str, name: str) -> None:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return _run(getattr(getattr(self, inside), name)(*args, **options))

    call.__name__ = name
    call.__qualname__ = f"{owner.__name__}.{name}"
    call.__doc__ = f"As :meth:`mtcache.{inside.strip('_').capitalize()}.{name}`, in this thread."
    setattr(owner, name, call)


for _name in _CALLS:
    _forward(SyncCache, "_cache", _name)
for _name in _REGION_CALLS:
    _forward(SyncRegion, "_region", _name)


def connect_sync(url: str = "redis://localhost:6379", **options: Any) -> SyncCache:
    """Opens a cache for synchronous code; options as :func:`mtcache.connect`."""
    return SyncCache(connect(url, **options).wait())
