"""The day of a client in steps, each with its result. ``python test_redis_client.py [URL]``; a failed step is a non-zero exit.

Everything it writes lies under keys of its own and is removed at the end. Without a URL it takes ``REDIS_URL``, and without that
``redis://localhost:6379``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from datetime import datetime, timezone
from typing import Any

from mtcache.compat.cache_decorators import cached, simple_key
from mtcache.compat.redis_client import (
    RedisCacheManager,
    buffer_signal,
    cache_market_data,
    cache_onchain_metrics,
    cache_social_sentiment,
    get_cached_market_data,
    get_recent_signals,
)

# Keys of this run alone, so that it harms no data; the deployment's prefix does that for the helpers' keys too.
PREFIX = f"selftest-{uuid.uuid4().hex[:8]}:"


class StepFailed(Exception):
    """A step whose result is not what it has to be."""


def heading(title: str) -> None:
    print(f"\n{'=' * 61}\n{title}\n{'=' * 61}")


def check(what: str, shown: Any, holds: bool) -> None:
    if not holds:
        raise StepFailed(f"{what}: {shown}")
    print(f"✅ {what}: {shown}")


async def connection(cache: RedisCacheManager) -> None:
    heading("Testing Redis Connection")
    check("Connected", cache.redis_url.rpartition("@")[2], await cache.connect())
    check("Ping", pong := await cache.ping(), pong is True)
    info = await cache.info("server")
    check("Server", info.get("redis_version", "in this process"), isinstance(info, dict))


async def basics(cache: RedisCacheManager) -> None:
    heading("Testing Basic Operations")
    value = {"message": "Hello Redis!", "timestamp": datetime.now(timezone.utc).isoformat()}
    check("Set", stored := await cache.set("basic", value, ttl=60), stored is True)
    check("Get", found := await cache.get("basic"), found == value)
    check("Exists", count := await cache.exists("basic"), count == 1)
    check("Seconds left", left := await cache.ttl("basic"), 0 < left <= 60)
    check("Not set where a value is", stored := await cache.set("basic", 1, nx=True), stored is False)
    check("Deleted", count := await cache.delete("basic"), count == 1)
    check("Get after that", found := await cache.get("basic"), found is None)


async def collections(cache: RedisCacheManager) -> None:
    heading("Testing Sorted Sets and Hashes")
    check("Members added", count := await cache.zadd("scores", {"a": 1, "b": 2, "c": 3}), count == 3)
    check("By place", found := await cache.zrange("scores", 0, -1), found == ["a", "b", "c"])
    check("Lowest removed", count := await cache.zremrangebyrank("scores", 0, 0), count == 1)
    check("Members left", count := await cache.zcard("scores"), count == 2)
    check("Fields set", count := await cache.hset("state", {"failures": 0, "open": False}), count == 2)
    check("One field", found := await cache.hget("state", "open"), found is False)
    check("All fields", found := await cache.hgetall("state"), found == {"failures": 0, "open": False})
    check("Deleted", count := await cache.delete("scores", "state"), count == 2)


async def market(cache: RedisCacheManager) -> None:
    heading("Testing Market Data, Metrics and Sentiment")
    now = time.time()
    tick = {"symbol": "BTCUSDT", "price": 45000.50, "volume": 1234567.89, "timestamp": now}
    check("Price stored", stored := await cache_market_data(cache, "BTCUSDT", tick), stored is True)
    late = {**tick, "price": 1.0, "timestamp": now - 10}
    await cache_market_data(cache, "BTCUSDT", late)
    check("Price, a late tick later", found := await get_cached_market_data(cache, "BTCUSDT"), found == tick)
    check("Metrics stored", stored := await cache_onchain_metrics(cache, "BTC", {"nvt_ratio": 45.2}), stored is True)
    check("Sentiment stored", stored := await cache_social_sentiment(cache, "BTC", {"score": 0.4}), stored is True)
    keys = ("market_data:BTCUSDT", "onchain_metrics:BTC", "social_sentiment:BTC")
    check("Seconds left of each", left := [await cache.ttl(key) for key in keys], all(0 < s <= 300 for s in left))
    check("Deleted", count := await cache.delete(*keys), count == 3)


async def signals(cache: RedisCacheManager) -> None:
    heading("Testing Signals")
    now = time.time()
    sent = [{"symbol": "BTCUSDT", "signal_type": "BUY", "strength": 0.85, "timestamp": now + n / 1000} for n in range(5)]
    done = await asyncio.gather(*(buffer_signal(cache, signal) for signal in [*sent, sent[-1]]))
    check("Buffered at once", len(done), all(done))
    found = await get_recent_signals(cache, count=10)
    check("Newest first, equal ones too", len(found), found == [sent[-1], *reversed(sent)])
    check("None of none", found := await get_recent_signals(cache, count=0), found == [])
    check("Deleted", count := await cache.delete("signals:recent"), count == 1)


async def sharing(cache: RedisCacheManager) -> None:
    heading("Testing One Call for Many")

    class Provider:
        redis_cache = cache
        calls = 0

        @cached(prefix="provider", ttl=30, key_func=simple_key(0))
        async def ask(self, symbol: str) -> dict[str, str]:
            self.calls += 1
            await asyncio.sleep(0.05)
            return {"symbol": symbol}

    provider = Provider()
    answers = await asyncio.gather(*(provider.ask(symbol="BTC") for _ in range(50)))
    check("Calls for 50 that ask at once", provider.calls, provider.calls == 1 and len(answers) == 50)
    await provider.ask("ETH")
    check("Calls after another symbol", provider.calls, provider.calls == 2)
    check("Deleted", count := await cache.delete("provider:BTC", "provider:ETH"), count == 2)


async def main(url: str) -> int:
    print(f"╔{'=' * 58}╗\n║{'REDIS CLIENT TEST SUITE':^58}║\n╚{'=' * 58}╝")
    cache = RedisCacheManager(redis_url=url, prefix=PREFIX)
    try:
        for step in (connection, basics, collections, market, signals, sharing):
            await step(cache)
    except StepFailed as failure:
        print(f"❌ {failure}")
        return 1
    finally:
        await cache.disconnect()
    print("\n✅ ALL TESTS PASSED!")
    return 0


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://localhost:6379")
    sys.exit(asyncio.run(main(given)))
