"""Drop-in for ``shared.cache_decorators``: caching for methods of objects that have a ``redis_cache``.

Every argument is part of the key, also those given by name. Calls for one key that miss together share one call of the function.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

from ..arguments import digest, placed
from ..errors import CacheError, LoaderError
from .redis_client import RedisCacheManager

__all__ = ["CacheStats", "cache_invalidate", "cache_key_generator", "cached", "simple_key", "stats"]

logger = logging.getLogger(__name__)


class CacheStats:
    """Counts what the decorators do."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self.invalidations = 0

    @property
    def hit_rate(self) -> float:
        """Hits among all reads, 0 to 1."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The counters by their names."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "errors": self.errors,
            "invalidations": self.invalidations,
            "hit_rate": self.hit_rate,
            "total_requests": self.hits + self.misses,
        }

    def reset(self) -> None:
        """Begins again from zero."""
        self.__init__()  # type: ignore[misc]


#: What all decorated functions of this process have done together.
stats = CacheStats()


def cache_key_generator(*args: Any, **kwargs: Any) -> str:
    """A key for these arguments: a digest of all of them, those by name included.

    >>> cache_key_generator("BTC") == cache_key_generator("ETH")
    False
    >>> cache_key_generator(symbol="BTC") == cache_key_generator(symbol="ETH")
    False
    """
    return digest(args, kwargs)


def simple_key(*arg_indices: int) -> Callable[..., str]:
    """A readable key of the arguments at these places, ``self`` not counted, whether they were given by name or not.

    >>> simple_key(0)("BTC"), simple_key(0)(symbol="BTC"), simple_key(0, 1)("BTC", "1h")
    ('BTC', 'BTC', 'BTC:1h')
    """

    def key(*args: Any, **kwargs: Any) -> str:
        given = [*args, *kwargs.values()]
        if not all(index < len(given) for index in arg_indices):
            raise ValueError(f"there is no argument at one of the places {arg_indices}")
        parts = (str(given[index]) for index in arg_indices)
        return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)

    key._by_place = True  # type: ignore[attr-defined]
    return key


def _id_maker(
    prefix: str, key_func: Callable[..., Any] | None, function: Callable[..., Any]
) -> Callable[..., tuple[str, tuple[str, ...]]]:
    """What makes the base of the key and the rest of it from a call's arguments."""
    base, *inner = prefix.split(":")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", base):
        base, inner = "cached", prefix.split(":")
    if key_func is None or getattr(key_func, "_by_place", False):
        make, place = key_func or cache_key_generator, placed(function)
    else:
        make, place = key_func, None

    def id_of(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        if place is not None:
            bound = place(self, *args, **kwargs)
            rest = make(**{name: value for name, value in list(bound.items())[1:]})
        else:
            rest = make(*args, **kwargs)
        return base, (*inner, *str(rest).split(":"))

    return id_of


def _manager(self: Any) -> RedisCacheManager | None:
    for name in ("redis_cache", "cache"):
        manager = getattr(self, name, None)
        if isinstance(manager, RedisCacheManager):
            return manager
    return None


def _count(self: Any, name: str) -> None:
    if hasattr(self, name):
        setattr(self, name, getattr(self, name) + 1)


def cached(
    prefix: str, ttl: float = 60, key_func: Callable[..., Any] | None = None, *, none_ttl: float | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Caches what a coroutine method returns, in the ``redis_cache`` (or ``cache``) of its object.

    :param prefix: What the keys begin with.
    :param ttl: Seconds that a result lives.
    :param key_func: Makes the rest of the key from the arguments; by default a digest of all of them.
    :param none_ttl: Seconds that a None lives; by default it is not cached, as it never was.

    >>> from mtcache.compat.cache_decorators import cached
    >>> class Prices:
    ...     def __init__(self, redis_cache):
    ...         self.redis_cache = redis_cache
    ...     @cached(prefix="price", ttl=30)
    ...     async def price(self, symbol):
    ...         return {"symbol": symbol}
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        id_of = _id_maker(prefix, key_func, function)

        @functools.wraps(function)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            manager = _manager(self)
            if manager is None:
                return await function(self, *args, **kwargs)
            try:
                base, id = id_of(self, args, kwargs)
                await manager._ready()
                region = manager._loading_region(base, ttl, none_ttl)
            except (CacheError, TypeError, ValueError) as error:
                stats.errors += 1
                manager._failed("cached", error)
                return await function(self, *args, **kwargs)
            ours: list[Any] = []
            has_begun = False

            async def load() -> Any:
                nonlocal has_begun
                has_begun = True
                ours.append(await function(self, *args, **kwargs))
                return ours[0]

            try:
                read = await region.read_or_load(id, load)
            except LoaderError as error:
                _count(self, "cache_misses")
                stats.misses += 1
                # The function's own exception is what its caller knows.
                raise error.__cause__ or error
            except CacheError as error:
                stats.errors += 1
                manager._failed("cached", error)
                if ours:
                    # It was made, though it could not be kept.
                    return ours[0]
                if has_begun:
                    raise
                return await function(self, *args, **kwargs)
            if read.source == "loader":
                stats.misses += 1
                _count(self, "cache_misses")
            else:
                stats.hits += 1
                _count(self, "cache_hits")
            return read.value

        return call

    return decorate


def cache_invalidate(
    prefix: str, key_func: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Removes the cached result for the same arguments once the method has returned.

    A method whose arguments differ from the cached one's takes a ``key_func``, such as ``simple_key(0)``, on both.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        id_of = _id_maker(prefix, key_func, function)

        @functools.wraps(function)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = await function(self, *args, **kwargs)
            manager = _manager(self)
            if manager is not None:
                try:
                    base, id = id_of(self, args, kwargs)
                    await manager._ready()
                    await manager._loading_region(base, 60, None).invalidate(id)
                    stats.invalidations += 1
                except (CacheError, TypeError, ValueError) as error:
                    stats.errors += 1
                    manager._failed("cache_invalidate", error)
            return result

        return call

    return decorate
