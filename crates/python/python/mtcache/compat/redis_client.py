"""Drop-in for ``shared.redis_client``: the names, defaults and results that services know, without its faults.

A failed call returns what it always did (None, False, 0, an empty list or dict); it is logged, and counted in
:attr:`RedisCacheManager.failures` by kind. Whoever wants exceptions uses the native API, :attr:`RedisCacheManager.cache`.
"""

from __future__ import annotations

import asyncio

import functools
import logging
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..cache import Cache, connect
from ..errors import CacheError, ClosedError, UnavailableError

__all__ = [
    "RedisCacheManager",
    "buffer_signal",
    "cache_market_data",
    "cache_onchain_metrics",
    "cache_social_sentiment",
    "get_cached_market_data",
    "get_recent_signals",
]

logger = logging.getLogger(__name__)

#: How long a hash lives after its first write, unless it is given an expiry. The old one lived for ever.
HASH_TTL = 86_400


def _failing(result: Callable[[], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method that answers ``result()`` when the cache fails, and tells of it."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        async def call(self: RedisCacheManager, *args: Any, **options: Any) -> Any:
            try:
                if not self._is_ours:
                    await self._ready()
                return await method(self, *args, **options)
            except (CacheError, TypeError, ValueError, OverflowError) as error:
                self._failed(method.__name__, error)
                return result()

        return call

    return decorate


def _none() -> None:
    return None


#: Seconds that a decorated method may take; the decorators of before knew no limit.
DECORATED_LOAD_TIMEOUT = 600.0


class RedisCacheManager:
    """The cache as services of the platform have always used it.

    :param redis_url: Any form the library knows: ``redis://``, ``unix://``, ``embedded://`` (an engine in this process) and the others.
    :param max_connections: Accepted and not needed: one connection carries all calls.
    :param decode_responses: Whether texts come as ``str``; with False what is no JSON comes as ``bytes``.
    :param options: As for :func:`mtcache.connect`, such as ``prefix``.

    >>> import asyncio
    >>> from mtcache.compat.redis_client import RedisCacheManager
    >>> async def main():
    ...     cache = RedisCacheManager(redis_url="embedded://")
    ...     await cache.connect()
    ...     await cache.set("key", {"data": "value"}, ttl=300)
    ...     print(await cache.get("key"), await cache.ttl("key"), await cache.get("other"))
    ...     await cache.disconnect()
    >>> asyncio.run(main())
    {'data': 'value'} 300 None
    """

    def __init__(
        self,
        redis_url: str = "redis://localhost:6379",
        max_connections: int = 50,
        decode_responses: bool = True,
        **options: Any,
    ) -> None:
        self.redis_url = redis_url
        self.max_connections = max_connections
        self.decode_responses = decode_responses
        self._options = options
        self._cache: Cache | None = None
        self._process = 0
        self._regions: dict[Any, Any] = {}
        self._opening: weakref.WeakKeyDictionary[Any, asyncio.Lock] = weakref.WeakKeyDictionary()
        #: How many calls have failed, by the class of their error.
        self.failures: Counter[str] = Counter()
        self.redis = _Redis(self)

    @property
    def cache(self) -> Cache:
        """The native cache below, whose calls raise."""
        if self._cache is None:
            raise ClosedError("not connected: await connect() first")
        return self._cache

    async def _ready(self) -> Cache:
        """The cache below, opened if it is not: a service that forgot to connect is served, and so is one that comes back."""
        if self._cache is not None and not self._is_ours:
            # The parent's, which is of no use in a child of a fork: left alone, and replaced.
            self._cache, self._regions, self._opening = None, {}, weakref.WeakKeyDictionary()
        if self._cache is None:
            lock = self._opening.setdefault(asyncio.get_running_loop(), asyncio.Lock())
            async with lock:
                if self._cache is None:
                    opened = await connect(self.redis_url, **self._options)
                    # First whose it is: other threads take one of another process for their parent's.
                    self._process = os.getpid()
                    self._cache = opened
        return self._cache

    @property
    def _is_ours(self) -> bool:
        return self._cache is not None and self._process == os.getpid()

    @property
    def _connected(self) -> bool:
        return self._is_ours and self.cache.is_connected

    def _failed(self, what: str, error: Exception) -> None:
        self.failures[type(error).__name__] += 1
        logger.warning("cache %s failed: %s: %s", what, type(error).__name__, error)

    def _loading_region(self, base: str, ttl: float, none_ttl: float | None) -> Any:
        """The region that the decorators load through."""
        policy = (base, ttl, none_ttl)
        if policy not in self._regions:
            self._regions[policy] = self.cache.region(
                base, ttl=ttl, none_ttl=none_ttl, undecodable="miss", load_timeout=DECORATED_LOAD_TIMEOUT
            )
        return self._regions[policy]

    async def connect(self) -> bool:
        """Connects. False if the server is not there yet: it is used from when it is, without another call."""
        try:
            cache = await self._ready()
            if not cache.is_connected:
                raise UnavailableError(f"{_without_password(self.redis_url)} is out of reach; it is tried again and again")
            await cache.ping()
        except (CacheError, ValueError) as error:
            self._failed("connect", error)
            return False
        return True

    async def disconnect(self) -> None:
        """Lets go of the server. A call after that connects again."""
        cache, is_ours = self._cache, self._is_ours
        self._cache = None
        self._regions.clear()
        if cache is not None and is_ours:
            cache.close()

    @_failing(_none)
    async def get(self, key):
        if self.decode_responses:
            return await self.cache.get(key)
        stored = await self.cache.get_bytes(key)
        return None if stored is None else _json_or_bytes(stored)

    @_failing(bool)
    async def set(self, key, value, ttl=3600, nx=False, xx=False):
        if nx and xx:
            raise ValueError("nx and xx exclude each other")
        return await self.cache.set(key, value, ttl, nx=nx, xx=xx)

    @_failing(int)
    async def delete(self, *keys):
        return await self.cache.delete(*keys)

    @_failing(int)
    async def exists(self, *keys):
        return await self.cache.exists(*keys)

    @_failing(bool)
    async def expire(self, key, seconds):
        return await self.cache.expire(key, seconds)

    @_failing(lambda: -2)
    async def ttl(self, key):
        left = await self.cache.ttl(key)
        if left is None:
            return -2
        return -1 if left == float("inf") else round(left)

    @_failing(int)
    async def zadd(self, key, mapping, nx=False, xx=False):
        return await self.cache.zadd(key, dict(mapping), nx, xx)

    @_failing(list)
    async def zrange(self, key, start=0, end=-1, withscores=False):
        return await self.cache.zrange(key, start, end, withscores)

    @_failing(int)
    async def zremrangebyrank(self, key, start, end):
        return await self.cache.zremrangebyrank(key, start, end)

    @_failing(int)
    async def zcard(self, key):
        return await self.cache.zcard(key)

    @_failing(int)
    async def hset(self, key, mapping, *, ttl=None):
        """Sets fields. Without ``ttl`` the hash keeps the expiry that it has, whoever set it, and gets a day if it has none; with it, it lives
        so many seconds from now on."""
        if ttl is None:
            return await self.cache.hset(key, mapping, HASH_TTL, keep_expiry=True)
        return await self.cache.hset(key, mapping, ttl)

    @_failing(_none)
    async def hget(self, key, field):
        return await self.cache.hget(key, str(field))

    @_failing(dict)
    async def hgetall(self, key):
        return await self.cache.hgetall(key)

    @_failing(bool)
    async def ping(self):
        return await self.cache.ping()

    @_failing(bool)
    async def flushdb(self):
        await self.cache.flush_database()
        return True

    @_failing(dict)
    async def info(self, section="all"):
        return _parsed_info(await self.cache.info(section))

    @_failing(dict)
    async def get_many(self, keys: Iterable[str]):
        """The values that are there, by their keys."""
        return await self.cache.get_many(keys)

    @_failing(bool)
    async def set_many(self, mapping: Mapping[str, Any], ttl=3600):
        await self.cache.set_many(mapping, ttl)
        return True

    @_failing(int)
    async def delete_many(self, keys: Iterable[str]):
        return await self.cache.delete_many(keys)

    @_failing(_none)
    async def increment(self, key, amount=1):
        """The sum; None if it failed, for 0 would be a number."""
        return await self.cache.increment(key, amount)

    @_failing(_none)
    async def decrement(self, key, amount=1):
        return await self.cache.decrement(key, amount)

    def stats(self) -> dict[str, Any]:
        """Hits, misses and the rest, with the failures of this manager."""
        counted = self.cache.stats()["keys"] if self._is_ours else {}
        return {**counted, "failures": dict(self.failures)}


class _Redis:
    """What callers reach as ``.redis``: methods by redis-py's names. Unlike the manager's own they raise."""

    __slots__ = ("_manager",)

    def __init__(self, manager: RedisCacheManager) -> None:
        self._manager = manager

    async def zrangebyscore(self, name, min, max, start=None, num=None, withscores=False):
        cache = await self._manager._ready()
        return await cache.zrange_by_score(name, min, max, start or 0, num, withscores)

    async def zrevrangebyscore(self, name, max, min, start=None, num=None, withscores=False):
        cache = await self._manager._ready()
        return await cache.zrange_by_score(name, min, max, start or 0, num, withscores, descending=True)

    async def zremrangebyscore(self, name, min, max):
        return await (await self._manager._ready()).zremrangebyscore(name, min, max)

    async def zcount(self, name, min, max):
        return await (await self._manager._ready()).zcount(name, min, max)

    async def zrem(self, name, *values):
        return await (await self._manager._ready()).zrem(name, *values)

    async def delete(self, *names):
        return await (await self._manager._ready()).delete(*names)

    async def execute_command(self, *args):
        """Any command, as its words are: without the prefix, and with texts as the server has them."""
        words = [word for arg in args for word in (arg.split() if arg is args[0] else [arg])]
        reply = await (await self._manager._ready()).command(*map(_word, words))
        if isinstance(reply, Exception):
            raise reply
        return _texts(reply) if self._manager.decode_responses else reply


def _word(arg: Any) -> Any:
    return arg if isinstance(arg, (str, bytes)) else str(arg)


def _texts(reply: Any) -> Any:
    if isinstance(reply, bytes):
        try:
            return reply.decode()
        except UnicodeDecodeError:
            return reply
    return [_texts(item) for item in reply] if isinstance(reply, list) else reply


def _json_or_bytes(stored: bytes) -> Any:
    from .. import decode

    value = decode(stored)
    return stored if isinstance(value, str) and value.encode(errors="surrogatepass") == stored else value


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    place, _, asked = rest.partition("?")
    # A "?" before the "@" belongs to a password that was not encoded.
    host = "..." if "@" in asked and "@" not in place else place.rpartition("@")[2]
    return f"{scheme}{separator}{host}"


def _parsed_info(text: str) -> dict[str, Any]:
    """INFO's lines as redis-py has them: numbers as numbers, what is in a line as a dict of its own."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if line.startswith("#") or not separator:
            continue
        if "," in value and "=" in value:
            pairs = (pair.partition("=") for pair in value.split(","))
            found[name] = {key: _number(part) for key, _, part in pairs}
        else:
            found[name] = _number(value)
    return found


def _number(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


async def cache_market_data(cache: RedisCacheManager, symbol: str, data: Any, ttl: float = 30) -> bool:
    """Stores a symbol's price. A tick that is older than the one there, by their ``timestamp``, is not stored, and that is no failure."""
    key = f"market_data:{symbol}"
    if not (isinstance(data, Mapping) and data.get("timestamp") is not None):
        return await cache.set(key, data, ttl=ttl)
    try:
        await (await cache._ready()).set(key, data, ttl, newer_by="timestamp")
    except (CacheError, TypeError, ValueError) as error:
        cache._failed("cache_market_data", error)
        return False
    return True


async def get_cached_market_data(cache: RedisCacheManager, symbol: str) -> Any:
    """A symbol's price; None if there is none."""
    return await cache.get(f"market_data:{symbol}")


async def cache_onchain_metrics(cache: RedisCacheManager, symbol: str, metrics: Any, ttl: float = 300) -> bool:
    """Stores a symbol's on-chain metrics."""
    return await cache.set(f"onchain_metrics:{symbol}", metrics, ttl=ttl)


async def cache_social_sentiment(cache: RedisCacheManager, symbol: str, sentiment: Any, ttl: float = 60) -> bool:
    """Stores a symbol's sentiment."""
    return await cache.set(f"social_sentiment:{symbol}", sentiment, ttl=ttl)


async def buffer_signal(cache: RedisCacheManager, signal: Any, max_signals: int = 1000) -> bool:
    """Puts a signal into the buffer, in one atomic step. True only if it is in the buffer then."""
    try:
        await (await cache._ready()).signals().push(signal, max_signals=max_signals)
    except (CacheError, TypeError, ValueError, OverflowError) as error:
        cache._failed("buffer_signal", error)
        return False
    return True


async def get_recent_signals(cache: RedisCacheManager, count: int = 100) -> list[Any]:
    """The newest signals, newest first."""
    try:
        return [found.signal for found in await (await cache._ready()).signals().recent(max(count, 0))]
    except (CacheError, TypeError, ValueError, OverflowError) as error:
        cache._failed("get_recent_signals", error)
        return []
