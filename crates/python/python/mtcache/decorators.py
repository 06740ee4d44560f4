"""Caching as a decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .arguments import digest, placed
from .errors import LoaderError
from .region import Region


def cached(
    region: Region[Any] | Callable[..., Region[Any]], *, key: Callable[..., Any] | None = None, name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Answers calls of a coroutine function from a region. Calls for one key that miss together share one call of the function, and
    its exceptions are theirs.

    :param region: The region, or what gives it for the function's arguments: ``lambda self, *_, **__: self.prices``.
    :param key: Makes the entry's name from the arguments, and all of it: functions whose keys are equal share their answers. By default it is
        ``(name, digest)``, the digest being of all arguments, however they were given, but for a first one that is called ``self`` or ``cls``.
    :param name: What stands for the function in that; functions of one name share their answers. By default its module and its qualified name,
        as in ``prices.Provider.price``. What has none (a ``functools.partial``, a callable object) needs one, and so do functions that are made several
        times over in one place, such as lambdas. ``region.invalidate_under(name)`` forgets all answers of one function.

    >>> import asyncio, mtcache
    >>> async def main():
    ...     async with mtcache.connect("embedded://") as cache:
    ...         @mtcache.cached(cache.region("price", ttl=30), key=lambda symbol: symbol)
    ...         async def price(symbol):
    ...             print("asking for", symbol)
    ...             return {"symbol": symbol, "price": 45000.5}
    ...         await asyncio.gather(price("BTC"), price(symbol="BTC"))
    ...         return await price("BTC")
    >>> asyncio.run(main())
    asking for BTC
    {'symbol': 'BTC', 'price': 45000.5}
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        place = placed(function)
        own = _name_of(function) if name is None and key is None else name

        def id_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if key is not None:
                return key(*args, **kwargs)
            given = place(*args, **kwargs)
            return own, digest({name: value for name, value in given.items() if name not in ("self", "cls")})

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            through = region if isinstance(region, Region) else region(*args, **kwargs)
            try:
                return await through.get_or_load(id_of(args, kwargs), functools.partial(function, *args, **kwargs))
            except LoaderError as error:
                raise error.__cause__ or error

        return call

    return decorate


def _name_of(function: Callable[..., Any]) -> str:
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        raise TypeError(f"{function!r} has no name that tells it from other functions: give one as name=") from None
