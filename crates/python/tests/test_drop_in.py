"""The drop-in: names, defaults and results as services know them."""

from __future__ import annotations

import asyncio
import inspect
import logging

import pytest

from mtcache.compat import cache_decorators, redis_client
from mtcache.compat.redis_client import (
    RedisCacheManager,
    buffer_signal,
    cache_market_data,
    cache_onchain_metrics,
    cache_social_sentiment,
    get_cached_market_data,
    get_recent_signals,
)

SIGNATURES = {
    "set": ["key", "value", "ttl=3600", "nx=False", "xx=False"],
    "delete": ["*keys"],
    "exists": ["*keys"],
    "expire": ["key", "seconds"],
    "ttl": ["key"],
    "zadd": ["key", "mapping", "nx=False", "xx=False"],
    "zrange": ["key", "start=0", "end=-1", "withscores=False"],
    "zremrangebyrank": ["key", "start", "end"],
    "zcard": ["key"],
    "hset": ["key", "mapping", "*", "ttl=None"],
    "hget": ["key", "field"],
    "hgetall": ["key"],
    "ping": [],
    "flushdb": [],
    "info": ["section='all'"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_methods_have_their_names_and_defaults(name):
    signature = inspect.signature(getattr(RedisCacheManager, name))
    given = [str(p).split(":")[0] for p in list(signature.parameters.values())[1:]]
    assert given == [part for part in SIGNATURES[name] if part != "*"]


def test_helpers_and_constructor_have_their_defaults():
    def defaults(function):
        return {n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not p.empty}

    assert defaults(RedisCacheManager) == {
        "redis_url": "redis://localhost:6379", "max_connections": 50, "decode_responses": True,
    }
    assert defaults(cache_market_data) == {"ttl": 30}
    assert defaults(cache_onchain_metrics) == {"ttl": 300}
    assert defaults(cache_social_sentiment) == {"ttl": 60}
    assert defaults(buffer_signal) == {"max_signals": 1000}
    assert defaults(get_recent_signals) == {"count": 100}
    cached = inspect.signature(cache_decorators.cached).parameters
    assert (cached["ttl"].default, cached["key_func"].default) == (60, None)


async def test_values_live_and_die_as_they_are_told(manager):
    assert await manager.set("key", {"data": "value"}, ttl=300) is True
    assert await manager.get("key") == {"data": "value"}
    assert 299 <= await manager.ttl("key") <= 300
    assert await manager.expire("key", 60) is True and 59 <= await manager.ttl("key") <= 60
    assert await manager.exists("key", "key", "none") == 2
    assert await manager.delete("key", "none") == 1
    assert await manager.get("key") is None
    assert await manager.ttl("key") == -2
    assert await manager.set("kept", 1, ttl=None) and await manager.ttl("kept") == -1
    await manager.set("plain", "text")
    assert await manager.get("plain") == "text" and 3599 <= await manager.ttl("plain") <= 3600
    assert manager.failures == {}


async def test_sorted_sets_and_hashes(manager):
    assert await manager.zadd("z", {"a": 1, "b": 2.5, "c": 3}) == 3
    assert await manager.zadd("z", {"a": 9, "d": 4}, nx=True) == 1
    assert await manager.zadd("z", {"a": 0.5, "e": 5}, xx=True) == 0
    assert await manager.zrange("z") == ["a", "b", "c", "d"]
    assert await manager.zrange("z", 0, 1, withscores=True) == [("a", 0.5), ("b", 2.5)]
    assert await manager.zcard("z") == 4
    assert await manager.zremrangebyrank("z", 0, 1) == 2
    assert await manager.hset("h", {"a": {"b": 1}, "c": "text"}) == 2
    assert await manager.hget("h", "a") == {"b": 1} and await manager.hget("h", "x") is None
    assert await manager.hgetall("h") == {"a": {"b": 1}, "c": "text"}
    assert manager.failures == {}


async def test_the_server_is_asked(manager):
    assert await manager.ping() is True
    info = await manager.info()
    assert info["redis_version"].startswith("7.") and isinstance(info["used_memory"], int)
    await manager.set("key", 1)
    assert await manager.flushdb() is True and await manager.exists("key") == 0


async def test_several_at_once_and_counters(manager):
    assert await manager.set_many({"a": 1, "b": {"c": 2}}, ttl=60) is True
    assert await manager.get_many(["a", "x", "b"]) == {"a": 1, "b": {"c": 2}}
    assert await manager.delete_many(["a", "b", "x"]) == 2
    assert (await manager.increment("n"), await manager.increment("n", 5), await manager.decrement("n", 2)) == (1, 6, 4)


async def test_the_shim_has_redis_pys_names_and_nothing_else(manager):
    await manager.zadd("z", {"a": 1, "b": 2, "c": 3})
    redis = manager.redis
    assert await redis.zrangebyscore("z", 2, "+inf") == ["b", "c"]
    assert await redis.zrangebyscore("z", "-inf", "(3", start=1, num=1, withscores=True) == [("b", 2.0)]
    assert await redis.zremrangebyscore("z", "-inf", 1) == 1
    for end in ("-inf", "+inf", float("inf")):
        assert await redis.zremrangebyscore("z", end, end) == 0, "nothing is at infinity"
    assert await redis.execute_command("SET", "raw", "1", "EX", 5) == "OK"
    assert await redis.execute_command("GET", "raw") == "1"
    assert await redis.execute_command("CONFIG GET", "maxmemory-policy")
    assert await redis.delete("z", "raw") == 2
    with pytest.raises(AttributeError):
        redis.blpop  # noqa: B018
    with pytest.raises(Exception, match="SUBSCRIBE"):
        await redis.execute_command("SUBSCRIBE", "c")


async def test_helpers_store_under_the_keys_of_the_table(manager):
    data = {"symbol": "BTCUSDT", "price": 45000.50, "volume": 1234567.89}
    assert await cache_market_data(manager, "BTCUSDT", data, ttl=30) is True
    assert await get_cached_market_data(manager, "BTCUSDT") == data == await manager.get("market_data:BTCUSDT")
    assert await cache_onchain_metrics(manager, "BTC", {"nvt_ratio": 1}) is True
    assert 299 <= await manager.ttl("onchain_metrics:BTC") <= 300
    assert await cache_social_sentiment(manager, "BTC", {"score": 1}) is True
    assert 59 <= await manager.ttl("social_sentiment:BTC") <= 60


async def test_failures_answer_as_they_always_did_and_are_logged_and_counted(caplog):
    manager = RedisCacheManager(redis_url="redis://127.0.0.1:1", connect_timeout=0.2)
    with caplog.at_level(logging.WARNING):
        assert await manager.connect() is False
        assert manager._connected is False
        assert await manager.get("key") is None
        assert await manager.set("key", 1) is False
        assert await manager.delete("key") == 0 and await manager.exists("key") == 0
        assert await manager.zrange("z") == [] and await manager.hgetall("h") == {}
        assert await manager.ping() is False and await manager.info() == {}
        assert await buffer_signal(manager, {"symbol": "BTC"}) is False
        assert await get_recent_signals(manager) == []
    assert manager.failures["UnavailableError"] >= 10
    assert len(caplog.records) >= 10
    await manager.disconnect()


async def test_a_service_that_forgot_to_connect_or_comes_back_is_served(url):
    manager = RedisCacheManager(redis_url=url)
    assert not manager._connected
    assert await manager.set("key", 1) and await manager.get("key") == 1 and manager._connected
    await manager.disconnect()
    assert not manager._connected
    assert all(await asyncio.gather(*(manager.set("key", n) for n in range(10))))
    await manager.disconnect()


@pytest.mark.parametrize(
    "address",
    ["redis://user:secret@127.0.0.1:1", "unix:///nowhere.sock?password=secret", "unix:///nowhere.sock?password=a@secret"],
)
async def test_the_password_is_in_no_log(caplog, address):
    manager = RedisCacheManager(redis_url=address, connect_timeout=0.2)
    assert await manager.connect() is False
    assert "secret" not in caplog.text
    await manager.disconnect()


async def test_undecoded_values_are_bytes_when_asked_for(url):
    manager = RedisCacheManager(redis_url=url, decode_responses=False)
    await manager.connect()
    await manager.set("text", "hello")
    await manager.set("json", {"a": 1})
    assert await manager.get("text") == b"hello" and await manager.get("json") == {"a": 1}
    await manager.disconnect()


def test_the_old_module_path_gives_the_same_objects():
    import sys
    from pathlib import Path

    folder = str(Path(redis_client.__file__).parent)
    sys.path.insert(0, folder)
    try:
        from shared.cache_decorators import cached
        from shared.redis_client import RedisCacheManager as old
    finally:
        sys.path.remove(folder)
    assert old is RedisCacheManager and cached is cache_decorators.cached
