"""The faults of the system that is replaced: each of these fails on what it did."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import datetime, timezone

import mtcache
import pytest

from mtcache.compat.cache_decorators import CacheStats, cache_invalidate, cached, simple_key, stats
from mtcache.compat.redis_client import (
    RedisCacheManager,
    buffer_signal,
    cache_market_data,
    get_cached_market_data,
    get_recent_signals,
)
from conftest import until


async def test_it_reconnects_by_itself_when_the_server_is_killed_under_load(own_server):
    manager = RedisCacheManager(redis_url=own_server.url, response_timeout=0.5)
    assert await manager.connect()
    stop = False
    answered = 0

    async def load():
        nonlocal answered
        while not stop:
            await manager.set("key", {"n": answered})
            answered += await manager.get("key") is not None
            await asyncio.sleep(0.001)

    loads = [asyncio.create_task(load()) for _ in range(8)]
    await asyncio.sleep(0.2)
    own_server.kill()
    await asyncio.sleep(0.3)
    assert await manager.get("key") is None and not manager._connected
    own_server.start()

    async def works():
        return await manager.set("again", 1) and await manager.get("again") == 1

    await until(works)
    before = answered

    async def goes_on():
        return answered > before + 50

    await until(goes_on)
    stop = True
    await asyncio.gather(*loads)
    await manager.disconnect()


async def test_it_starts_without_its_server_and_uses_it_later(own_server):
    own_server.kill()
    manager = RedisCacheManager(redis_url=own_server.url, connect_timeout=0.2)
    assert await manager.connect() is False
    own_server.start()

    async def works():
        return await manager.set("key", 1)

    await until(works)
    assert await manager.get("key") == 1 and manager._connected
    await manager.disconnect()


async def test_nx_and_xx_are_heeded(manager):
    assert await manager.set("key", 1, xx=True) is False
    assert await manager.set("key", 1, nx=True) is True
    assert await manager.set("key", 2, nx=True) is False
    assert await manager.get("key") == 1
    assert await manager.set("key", 3, xx=True) is True
    assert await manager.get("key") == 3


@pytest.mark.parametrize("ttl", [0, -1, -0.5, math.nan, "soon"])
async def test_a_ttl_that_cannot_be_is_told_of(manager, ttl, caplog):
    assert await manager.set("key", 1, ttl=ttl) is False
    assert sum(manager.failures.values()) == 1 and "set failed" in caplog.text
    assert await manager.get("key") is None


async def test_a_fraction_of_a_second_counts(manager):
    assert await manager.set("key", 1, ttl=0.3) is True
    assert await manager.get("key") == 1
    await asyncio.sleep(0.35)
    assert await manager.get("key") is None


async def test_eight_writers_of_four_hundred_signals_lose_none_that_belongs_in(manager):
    now = time.time()

    async def write(writer):
        for n in range(400):
            # A writer that has fallen behind the newest thousand is told so, and may be.
            await buffer_signal(manager, {"symbol": "BTC", "writer": writer, "n": n, "timestamp": now + n / 1000})

    await asyncio.gather(*(write(writer) for writer in range(8)))
    signals = await get_recent_signals(manager, count=5000)
    assert len(signals) == 1000
    assert sorted((s["n"], s["writer"]) for s in signals) == [(n, w) for n in range(275, 400) for w in range(8)]
    assert [s["n"] for s in signals] == sorted((s["n"] for s in signals), reverse=True)


async def test_two_equal_signals_stay_two(manager):
    signal = {"symbol": "BTC", "signal_type": "BUY", "strength": 0.85, "timestamp": time.time()}
    for _ in range(2):
        assert await buffer_signal(manager, signal)
    assert await get_recent_signals(manager) == [signal, signal]


async def test_a_count_of_zero_is_none(manager):
    await buffer_signal(manager, {"symbol": "BTC"})
    assert await get_recent_signals(manager, count=0) == []
    assert len(await get_recent_signals(manager, count=1)) == 1


@pytest.fixture(params=["UTC0", "JST-9", "EST5EDT"])
def zone(request, monkeypatch):
    """The zone that this process is in."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


async def test_an_iso_time_is_understood_and_one_without_a_zone_is_utc(manager, zone):
    now = time.time()
    naive = datetime.fromtimestamp(now - 60, timezone.utc).replace(tzinfo=None).isoformat()
    aware = datetime.fromtimestamp(now - 30, timezone.utc).isoformat()
    for n, at in enumerate([naive, aware, now]):
        assert await buffer_signal(manager, {"n": n, "timestamp": at}) is True
    assert [s["n"] for s in await get_recent_signals(manager)] == [2, 1, 0]
    scores = [score for _, score in await manager.zrange("signals:recent", withscores=True)]
    assert scores == pytest.approx([now - 60, now - 30, now], abs=0.01)
    since = datetime.fromtimestamp(now - 45, timezone.utc)
    for cut_off in (since, since.replace(tzinfo=None), since.replace(tzinfo=None).isoformat()):
        assert [found.signal["n"] for found in await manager.cache.signals().recent(since=cut_off)] == [2, 1]


@pytest.mark.parametrize("at", ["yesterday", math.nan, {}, -5])
async def test_a_time_that_is_none_is_no_success(manager, at):
    assert await buffer_signal(manager, {"symbol": "BTC", "timestamp": at}) is False
    assert await get_recent_signals(manager) == []


async def test_a_dead_server_is_no_success(own_server):
    manager = RedisCacheManager(redis_url=own_server.url, response_timeout=0.3)
    await manager.connect()
    own_server.kill()
    assert await buffer_signal(manager, {"symbol": "BTC"}) is False
    assert await manager.set("key", 1) is False
    await manager.disconnect()


async def test_the_newest_matches_come_and_the_filter_runs_before_the_limit(manager):
    now = time.time()
    for n in range(20):
        await buffer_signal(manager, {"symbol": "BTC" if n < 10 else "ETH", "n": n, "timestamp": now + n / 100})
    found = await manager.cache.signals().recent(3, symbol="BTC")
    assert [signal.signal["n"] for signal in found] == [9, 8, 7]


class Service:
    def __init__(self, manager):
        self.redis_cache = manager
        self.calls = []
        self.cache_hits = 0
        self.cache_misses = 0

    @cached(prefix="metrics", ttl=30)
    async def metrics(self, symbol, *, window=1):
        self.calls.append(symbol)
        await asyncio.sleep(0.05)
        return {"symbol": symbol, "window": window}

    @cached(prefix="price", ttl=30, key_func=simple_key(0))
    async def price(self, symbol, limit=10):
        self.calls.append(symbol)
        return {"symbol": symbol}

    @cache_invalidate(prefix="price", key_func=simple_key(0))
    async def set_price(self, symbol, price):
        pass

    @cached(prefix="none", none_ttl=5)
    async def none(self):
        self.calls.append(None)

    @cached(prefix="failing")
    async def failing(self):
        self.calls.append("failing")
        raise LookupError("no such symbol")


async def test_fifty_concurrent_misses_make_one_call(manager):
    service = Service(manager)
    results = await asyncio.gather(*(service.metrics("BTC") for _ in range(50)))
    assert service.calls == ["BTC"]
    assert all(result == {"symbol": "BTC", "window": 1} for result in results)
    assert len({id(result) for result in results}) == 50, "each caller has an object of its own"
    assert await service.metrics("BTC") == results[0] and service.calls == ["BTC"]
    assert service.cache_hits == 1


async def test_arguments_by_name_are_in_the_key(manager):
    service = Service(manager)
    assert (await service.metrics(symbol="BTC"))["symbol"] == "BTC"
    assert (await service.metrics(symbol="ETH"))["symbol"] == "ETH"
    assert (await service.metrics("BTC", window=2))["window"] == 2
    assert (await service.price(symbol="BTC"))["symbol"] == "BTC"
    assert (await service.price(symbol="ETH"))["symbol"] == "ETH"
    before = len(service.calls)
    assert (await service.metrics("BTC"))["symbol"] == "BTC"
    assert (await service.price("ETH"))["symbol"] == "ETH"
    assert len(service.calls) == before, "by name or not, it is the same call"


async def test_an_invalidation_reaches_the_same_key(manager):
    service = Service(manager)
    await service.price("BTC")
    await service.set_price("BTC", 5)
    await service.price("BTC")
    assert service.calls == ["BTC", "BTC"]
    assert await manager.exists("price:BTC") == 1


async def test_none_is_cached_when_asked(manager):
    service = Service(manager)
    assert await service.none() is None and await service.none() is None
    assert service.calls == [None]


async def test_the_functions_exception_is_its_callers(manager):
    service = Service(manager)
    for _ in range(2):
        with pytest.raises(LookupError, match="no such symbol"):
            await service.failing()
    assert len(service.calls) == 2


async def test_a_function_without_a_cache_just_runs():
    service = Service(None)
    assert (await service.metrics("BTC"))["symbol"] == "BTC"
    assert service.calls == ["BTC"]


async def test_the_decorators_count(manager):
    stats.reset()
    service = Service(manager)
    await service.price("BTC")
    await service.price("BTC")
    await service.set_price("BTC", 1)
    assert stats.to_dict() == {
        "hits": 1, "misses": 1, "errors": 0, "invalidations": 1, "hit_rate": 0.5, "total_requests": 2,
    }
    assert CacheStats().hit_rate == 0.0


async def test_another_type_is_an_error_and_no_miss(manager, caplog):
    await manager.hset("hash", {"a": 1})
    assert await manager.get("hash") is None
    assert manager.failures == {"WrongTypeError": 1} and "WrongTypeError" in caplog.text


async def test_a_hash_does_not_live_for_ever(manager):
    await manager.hset("hash", {"a": 1})
    assert 86_390 <= await manager.ttl("hash") <= 86_400
    await manager.cache.command("HSET", "by others", "a", "1")
    assert await manager.ttl("by others") == -1
    await manager.hset("by others", {"b": 2})
    assert 86_390 <= await manager.ttl("by others") <= 86_400


async def test_an_expiry_that_a_hash_was_given_is_not_prolonged_by_writing_to_it(manager):
    await manager.hset("hash", {"a": 1})
    assert await manager.expire("hash", 100) is True
    assert await manager.hset("hash", {"b": 2}) == 1
    assert 90 <= await manager.ttl("hash") <= 100
    assert await manager.hset("hash", {"c": 3}, ttl=1000) == 1
    assert 990 <= await manager.ttl("hash") <= 1000, "unless one is given with it"


async def test_a_late_tick_never_replaces_a_newer_price(manager):
    now = time.time()
    assert await cache_market_data(manager, "BTC", {"price": 2, "timestamp": now})
    assert await cache_market_data(manager, "BTC", {"price": 1, "timestamp": now - 5})
    assert (await get_cached_market_data(manager, "BTC"))["price"] == 2


async def test_nan_is_refused_and_told_of(manager, caplog):
    assert await manager.set("key", {"price": math.nan}) is False
    assert manager.failures == {"UnencodableError": 1} and "finite" in caplog.text
    assert await manager.exists("key") == 0


async def test_what_cannot_be_kept_is_made_once_for_its_caller(manager):
    calls = []

    class Service:
        redis_cache = manager

        @cached(prefix="odd")
        async def odd(self, value):
            calls.append(value)
            if value == "bad":
                raise mtcache.DeadlineError("the source's own")
            return {"price": math.nan}

    service = Service()
    assert math.isnan((await service.odd(1))["price"]) and calls == [1]
    with pytest.raises(mtcache.DeadlineError, match="own"):
        await service.odd("bad")
    assert calls == [1, "bad"]


async def test_arguments_that_look_alike_are_not_taken_for_each_other(manager):
    class Table:
        ndim = 1

        def __init__(self, *items):
            self.items = items

        def __repr__(self):
            return "[1.]"

    class Service:
        redis_cache = manager

        @cached(prefix="sized")
        async def sized(self, table):
            return list(table.items) if isinstance(table, Table) else "bare"

    service = Service()
    assert await service.sized(Table(1.000000001)) == [1.000000001]
    assert await service.sized(Table(1.000000002)) == [1.000000002]
    assert await service.sized(object()) == "bare" and manager.failures["TypeError"] == 3
