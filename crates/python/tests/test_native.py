"""The native API on every backend."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Optional

import pydantic
import pytest

import mtcache
from conftest import run_python, until


async def test_keys_say_what_is_there(cache):
    assert await cache.set("a", {"b": 1}, ttl=timedelta(minutes=1)) is True
    assert await cache.set("a", 2, nx=True) is False and await cache.set("none", 2, xx=True) is False
    assert await cache.get("a") == {"b": 1} and await cache.get("none", mtcache.MISSING) is mtcache.MISSING
    await cache.set("null", None)
    assert await cache.get("null", 5) is None, "a None that is stored is no miss"
    assert 59 < await cache.ttl("a") <= 60 and await cache.ttl("none") is None
    await cache.set("kept", 1, ttl=None)
    assert await cache.ttl("kept") == float("inf")
    assert await cache.set_many({"x": 1, "y": b"\xff\x00"}) is None
    assert await cache.get_many(iter(["x", "none", "y"])) == {"x": 1, "y": b"\xff\x00"}
    assert await cache.delete_many(["x", "y", "none"]) == 2


async def test_errors_have_their_kinds(cache):
    await cache.hset("hash", {"a": 1})
    await cache.set("text", "words")
    for error, call in [
        (mtcache.WrongTypeError, lambda: cache.get("hash")),
        (mtcache.NotANumberError, lambda: cache.increment("text")),
        (mtcache.BadTtlError, lambda: cache.set("key", 1, ttl=0)),
        (mtcache.BadKeyError, lambda: cache.get("")),
        (mtcache.UnencodableError, lambda: cache.set("key", float("nan"))),
        (mtcache.RefusedError, lambda: cache.command("NO-SUCH-COMMAND")),
        (ValueError, lambda: cache.set("key", 1, nx=True, xx=True)),
        (TypeError, lambda: cache.set("key", 1, ttl="soon")),
    ]:
        with pytest.raises(error):
            await call()
    with pytest.raises(mtcache.ConfigError):
        await mtcache.connect("nonsense://host")


async def test_a_region_loads_once_for_all_who_ask(cache):
    region = cache.region("metrics", ttl=60)
    calls = 0

    async def load():
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        return {"n": calls}

    found = await asyncio.gather(*(region.get_or_load("BTC", load) for _ in range(100)))
    assert calls == 1 and found == [{"n": 1}] * 100 and len({id(value) for value in found}) == 100
    assert await region.get("BTC") == {"n": 1}
    assert region.key("BTC") == "metrics:BTC" and region.key(("BTC", "1h", 5)) == "metrics:BTC:1h:5"
    stats = region.stats()
    assert stats["loads"] == 1 and stats["hits"] == 1 and cache.stats()["metrics"]["joined_loads"] == 99


async def test_a_loader_may_be_any_kind_of_function(cache):
    region = cache.region("r", ttl=60)
    threads = set()

    def plain(n):
        threads.add(threading.get_ident())
        return n

    async def coroutine(n):
        return n

    class Callable:
        async def __call__(self):
            return "object"

    import functools

    assert await region.get_or_load("a", functools.partial(plain, 1)) == 1
    assert await region.get_or_load("b", lambda: coroutine(2)) == 2
    assert await region.get_or_load("c", functools.partial(coroutine, 3)) == 3
    assert await region.get_or_load("d", Callable()) == "object"
    assert threading.get_ident() not in threads, "what may block runs elsewhere"


async def test_a_failing_loader_is_its_callers_error_and_is_called_again(cache):
    region = cache.region("r", ttl=60)
    calls = []

    async def fail():
        calls.append(1)
        await asyncio.sleep(0.02)
        raise LookupError("no such symbol")

    results = await asyncio.gather(*(region.get_or_load("x", fail) for _ in range(10)), return_exceptions=True)
    assert len(calls) == 1
    assert all(isinstance(r, mtcache.LoaderError) and isinstance(r.__cause__, LookupError) for r in results)
    assert await region.get_or_load("x", lambda: 5) == 5
    with pytest.raises(mtcache.UnencodableError):
        await region.get_or_load("y", lambda: float("nan"))


async def test_a_cancelled_caller_leaves_the_load_to_the_others(cache):
    region = cache.region("r", ttl=60)
    calls = 0

    async def load():
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        return "value"

    leader = asyncio.create_task(region.get_or_load("x", load))
    await asyncio.sleep(0.02)
    follower = asyncio.create_task(region.get_or_load("x", load))
    await asyncio.sleep(0.02)
    leader.cancel()
    assert await follower == "value" and calls == 1 and leader.cancelled()


def test_a_loader_whose_loop_is_closed_is_taken_over_by_another_loop(url):
    cache = mtcache.connect(url).wait()
    region = cache.region("r", ttl=60)
    began = threading.Event()

    async def never():
        began.set()
        await asyncio.sleep(3600)

    async def leave():
        task = asyncio.create_task(region.get_or_load("x", never))
        while not began.is_set():
            await asyncio.sleep(0.005)
        ready.set()
        await asyncio.sleep(0.2)
        task.cancel()

    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(leave()))
    thread.start()
    ready.wait(10)

    async def other():
        return await asyncio.wait_for(region.get_or_load("x", lambda: "mine"), 10)

    assert asyncio.run(other()) == "mine"
    thread.join(10)
    cache.close()


async def test_a_load_that_takes_too_long_is_ended_and_so_is_its_task(cache):
    region = cache.region("r", ttl=60, load_timeout=0.1)
    ended = asyncio.Event()

    async def slow():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    with pytest.raises(mtcache.LoadTimeoutError):
        await region.get_or_load("x", slow)
    await asyncio.wait_for(ended.wait(), 5)


async def test_reads_say_where_they_come_from_and_how_old_they_are(cache):
    region = cache.region("r", ttl=60)
    loaded = await region.read_or_load("x", lambda: 1)
    assert (loaded.value, loaded.source, loaded.is_stale) == (1, "loader", False)
    read = await region.read("x")
    assert read.source == "backend" and read.age_bound == "at_most" and 0 <= read.age < 5
    assert await region.read("none") is None
    assert await region.get("x", max_age=30) == 1
    await asyncio.sleep(0.05)
    assert await region.get("x", "too old", max_age=0.01) == "too old"


async def test_nothing_is_a_value_when_the_source_has_none(cache):
    region = cache.region("r", ttl=60, none_ttl=5)
    calls = []
    for _ in range(3):
        assert await region.get_or_load("x", lambda: calls.append(1)) is None
    assert len(calls) == 1 and 4 < await region.time_left("x") <= 5


async def test_regions_set_get_and_forget_several(cache):
    region = cache.region("r", ttl=60)
    await region.set_many({"a": 1, ("b", "c"): [2]})
    assert await region.get_many(["a", "none", ("b", "c")]) == {"a": 1, ("b", "c"): [2]}
    assert await region.set("a", 3, xx=True) is True and await region.set("a", 4, nx=True) is False
    assert await region.set("short", 1, ttl=5) is True and 4 < await region.time_left("short") <= 5
    assert await region.touch("short") and await region.time_left("short") > 50
    assert await region.delete("a") is True and await region.delete("a") is False
    assert await region.invalidate_all() == 2


async def test_a_late_value_never_replaces_a_newer_one(cache):
    prices = cache.trading_region("market_data")
    now = time.time()
    assert await prices.set("BTC", {"price": 2, "timestamp": now}, newer_by="timestamp") is True
    assert await prices.set("BTC", {"price": 1, "timestamp": now - 1}, newer_by="timestamp") is False
    assert (await prices.get("BTC"))["price"] == 2 and 29 < await prices.time_left("BTC") <= 30
    with pytest.raises(KeyError):
        cache.trading_region("no_such_region")


async def test_a_near_value_is_at_hand_until_its_key_changes_anywhere(cache, url):
    region = cache.region("r", ttl=60, near=True)
    await region.set("x", {"a": 1})

    async def is_near():
        await region.get("x")
        return region.peek("x", mtcache.MISSING) is not mtcache.MISSING

    await until(is_near)
    one, other = region.peek("x"), await region.get("x")
    assert one == other == {"a": 1} and one is not other
    assert (await region.read("x")).source == "near"
    await region.set("x", {"a": 2})
    assert await region.get("x") == {"a": 2}
    if url != "embedded://":
        await until(is_near)
        async with mtcache.connect(url) as elsewhere:
            await elsewhere.set("r:x", {"a": 3})

            async def heard():
                return await region.get("x") == {"a": 3}

            await until(heard)


async def test_a_shared_value_is_one_object_when_asked_for(cache):
    region = cache.region("r", ttl=60, near=True, share=True)
    await region.set("x", {"a": 1})

    async def is_near():
        await region.get("x")
        return region.peek("x") is not None

    await until(is_near)
    assert region.peek("x") is await region.get("x")


async def test_a_killed_region_goes_to_its_loader(cache):
    region = cache.region("r", ttl=60, near=True)
    await region.set("x", "cached")
    region.mode = "killed"
    assert region.mode == "killed" and await region.get("x") is None and region.peek("x") is None
    assert await region.get_or_load("x", lambda: "loaded") == "loaded"
    region.mode = "on"
    with pytest.raises(mtcache.ConfigError):
        region.mode = "maybe"


async def test_what_happens_is_told(cache):
    region = cache.region("r", ttl=60)
    heard = []

    async def listen():
        async for event in cache.events():
            heard.append(event)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)
    await region.get("x")
    await region.get_or_load("x", lambda: 1)
    await region.get("x")

    async def told():
        return {"miss", "load", "read"} <= {event["kind"] for event in heard}

    await until(told)
    listening.cancel()
    assert all(event["region"] == "r" and event["key"] == "r:x" for event in heard if event["kind"] == "read")


async def test_signals_come_back_with_every_digit(cache):
    signals = cache.signals()
    big = 2**80 + 1
    signal = {"symbol": "BTC", "signal_type": "BUY", "strength": 0.1 + 0.2, "big": big, "timestamp": time.time()}
    identity, count = await signals.push(signal)
    assert count == 1 and identity
    (found,) = await signals.recent(10)
    assert found.signal == signal and found.id == identity and 0 <= found.age < 5
    assert await signals.recent(10, min_strength=0.9) == []
    since = datetime.now(timezone.utc) - timedelta(seconds=60)
    assert len(await signals.recent(10, symbol="BTC", signal_type="buy", since=since)) == 1
    with pytest.raises(mtcache.SignalTooOldError):
        await signals.push({"timestamp": time.time() - 100_000})
    with pytest.raises(mtcache.InvalidSignalError):
        await signals.push([1])
    with pytest.raises(mtcache.InvalidTimestampError):
        await signals.push({"timestamp": "soon"})
    assert await signals.count() == 1
    await signals.clear()
    assert await signals.count() == 0


async def test_sessions_open_with_their_token_alone(cache):
    sessions = cache.sessions()
    token, session = await sessions.create("ada", {"role": "admin"})
    assert (await sessions.get(token)).data == {"role": "admin"} and session.user_id == "ada"
    assert await sessions.get("f" * 64) is None and await sessions.get("nonsense") is None
    assert await sessions.update(token, {"role": "user"}) and (await sessions.get(token)).data == {"role": "user"}
    assert [one.id for one in await sessions.list("ada")] == [session.id]
    assert token not in str(await cache.command("KEYS", "*"))
    assert await sessions.revoke(token) is True and await sessions.get(token) is None
    await sessions.create("ada")
    assert await sessions.revoke_all("ada") == 1


class Side(Enum):
    BUY = "buy"


@dataclasses.dataclass
class Leg:
    price: Decimal
    sides: list[Side]


@dataclasses.dataclass
class Order:
    symbol: str
    at: datetime
    legs: dict[str, Leg]
    limit: Optional[float] = None


class Sentiment(pydantic.BaseModel):
    symbol: str
    score: Decimal
    at: datetime


class Ticker(pydantic.BaseModel, extra="forbid"):
    last_price: float = pydantic.Field(alias="lastPrice")
    kind: str = pydantic.Field("spot", validation_alias="type")

    @pydantic.computed_field
    def doubled(self) -> float:
        return 2 * self.last_price


async def test_a_model_with_aliases_and_computed_fields_comes_back(cache):
    tickers = cache.region(Ticker, ttl=60)
    ticker = Ticker(lastPrice=1.5)
    assert await tickers.get_or_load("x", lambda: ticker) == ticker
    await tickers.set("y", ticker)
    assert await tickers.get("x") == ticker == await tickers.get("y")
    await cache.set("ticker:theirs", {"lastPrice": 2, "type": "swap"})
    assert (await tickers.get("theirs")).kind == "swap"


async def test_values_of_a_dataclass_or_a_pydantic_model_come_back_as_such(cache):
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    order = Order("BTC", at, {"a": Leg(Decimal("1.10"), [Side.BUY])}, limit=2)
    orders = cache.region(Order, ttl=60)
    assert orders.name == "order" and await orders.set("x", order)
    assert await orders.get("x") == order and await orders.get("none") is None
    assert (await orders.read("x")).value == order and await orders.get_many(["x"]) == {"x": order}
    assert (await cache.get("order:x"))["legs"]["a"]["price"] == "1.10", "others read plain JSON"
    sentiments = cache.region("sentiment", ttl=60, model=Sentiment, near=True)
    sentiment = Sentiment(symbol="BTC", score=Decimal("0.123456789012345678901"), at=at)
    assert await sentiments.get_or_load("x", lambda: sentiment) == sentiment == await sentiments.get("x")
    await cache.set("order:bad", {"symbol": 5})
    await cache.set("sentiment:bad", "words")
    await cache.set("order:epoch", {"symbol": "BTC", "at": 1767323045.5, "legs": {}})
    with pytest.raises(mtcache.UndecodableError, match="text is due"):
        await orders.get("epoch")
    for region in (orders, sentiments):
        with pytest.raises(mtcache.UndecodableError):
            await region.get("bad")
    with pytest.raises(mtcache.UnencodableError):
        await orders.set("x", {"symbol": "BTC"})


async def test_the_decorator_answers_from_its_region(cache):
    calls = []

    @mtcache.cached(cache.region("r", ttl=60))
    async def ask(symbol, *, window=1):
        calls.append(symbol)
        if symbol == "bad":
            raise LookupError(symbol)
        return {"symbol": symbol, "window": window}

    assert await ask("BTC") == await ask(symbol="BTC", window=1) == {"symbol": "BTC", "window": 1}
    assert await ask("ETH") != await ask("ETH", window=2)
    assert calls == ["BTC", "ETH", "ETH"]
    with pytest.raises(LookupError):
        await ask("bad")


async def test_functions_over_one_region_have_answers_of_their_own(cache):
    region = cache.region("r", ttl=60)

    class Provider:
        @mtcache.cached(region)
        async def bid(self, symbol):
            return f"bid of {symbol}"

        @mtcache.cached(region)
        async def ask(self, symbol):
            return f"ask of {symbol}"

    assert await Provider().bid("BTC") == "bid of BTC" and await Provider().ask("BTC") == "ask of BTC"
    assert await Provider().bid("ETH") == "bid of ETH"
    assert await region.invalidate_under(f"{__name__}.{Provider.bid.__qualname__}") == 2
    assert await region.invalidate_under(f"{__name__}.{Provider.ask.__qualname__}") == 1


async def test_functions_share_answers_if_they_are_told_to(cache):
    region = cache.region("r", ttl=60)

    async def price(symbol):
        return f"price of {symbol}"

    async def never(symbol):
        raise AssertionError("it is there")

    assert await mtcache.cached(region, name="price")(price)("BTC") == "price of BTC"
    assert await mtcache.cached(region, name="price")(never)("BTC") == "price of BTC"
    by_key = mtcache.cached(region, key=lambda symbol: symbol)
    assert await by_key(price)("BTC") == await by_key(never)("BTC") == await region.get("BTC") == "price of BTC"


async def test_a_function_without_a_name_is_given_one(cache):
    region = cache.region("r", ttl=60)
    whole = functools.partial(asyncio.sleep, 0)
    with pytest.raises(TypeError, match="name="):
        mtcache.cached(region)(whole)
    assert await mtcache.cached(region, name="whole")(whole)(5) == 5


async def test_the_environment_is_read_once(cache, monkeypatch):
    monkeypatch.setenv("MTCACHE_REGION_MARKET_DATA_TTL", "77s")
    prices = cache.trading_region("market_data")
    await prices.set("BTC", 1)
    assert 70 < await prices.time_left("BTC") <= 77
    cache.signals()
    monkeypatch.setenv("MTCACHE_REGION_MARKET_DATA_TTL", "nonsense")
    again = cache.trading_region("market_data", share=True)
    await again.set("ETH", 1)
    assert 70 < await again.time_left("ETH") <= 77
    assert await cache.signals().count() == 0
    token, _ = await cache.sessions().create("ada")
    assert (await cache.sessions().get(token)).user_id == "ada"
    async with mtcache.connect("embedded://") as other:
        for ask in (other.signals, other.sessions, lambda: other.trading_region("market_data")):
            with pytest.raises(mtcache.ConfigError):
                ask()


def test_the_same_without_a_loop(url):
    with mtcache.connect_sync(url) as cache:
        assert cache.set("a", {"b": 1}) is True and cache.get("a") == {"b": 1}
        assert cache.get_many(["a", "x"]) == {"a": {"b": 1}} and cache.increment("n", 2) == 2
        region = cache.region("r", ttl=60)
        calls = []

        def load():
            calls.append(1)
            time.sleep(0.05)
            return {"n": len(calls)}

        found = []
        threads = [threading.Thread(target=lambda: found.append(region.get_or_load("x", load))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert found == [{"n": 1}] * 20 and len(calls) == 1
        assert region.get("x") == {"n": 1} and region.get_many(["x"]) == {"x": {"n": 1}}
        assert region.read("x").source == "backend"
        orders = cache.region("leg", ttl=60, model=Leg)
        assert orders.get_or_load("x", lambda: Leg(Decimal("1.1"), [])) == Leg(Decimal("1.1"), []) == orders.get("x")
        cache.push_signal({"symbol": "BTC"})
        assert [one.signal for one in cache.recent_signals(5)] == [{"symbol": "BTC"}]
        cache.signals().push({"symbol": "ETH"})
        assert [one.signal["symbol"] for one in cache.signals().recent(5)] == ["ETH", "BTC"]
        assert [one.signal["symbol"] for one in cache.signals().recent(5, symbol="BTC")] == ["BTC"]
        assert cache.signals().count() == 2 and cache.signals().clear() is None and cache.signals().count() == 0
        with pytest.raises(mtcache.WrongTypeError):
            cache.hset("h", {"a": 1})
            cache.get("h")
    with pytest.raises(mtcache.ClosedError):
        cache.get("a")


LOADERS = """
import sys, threading, time, mtcache
keys = [f"k{n}" for n in range(200)]
running, most, lock, goes_on = 0, 0, threading.Lock(), threading.Event()

def load():
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    goes_on.wait()
    # About so many keys an engine in the process is asked in a thread of the package.
    found = len(cache.get_many(keys))
    with lock:
        running -= 1
    return found

def until(claim):
    end = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.001)

with mtcache.connect_sync(sys.argv[1]) as cache:
    cache.set_many(dict.fromkeys(keys, 1))
    region = cache.region("r", ttl=60)
    threads = [threading.Thread(target=region.get_or_load, args=(n, load)) for n in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: region.stats()["misses"] == 6 and running >= 2)
    # While loaders have all the threads that they may have.
    print(len(cache.get_many(keys)), region.stats()["loads"])
    short = cache.region("short", ttl=60, load_timeout=0.1)
    try:
        short.get_or_load("x", lambda: print("it has run"))
    except mtcache.LoadTimeoutError:
        print("no place in time")
    goes_on.set()
    for thread in threads:
        thread.join()
    print(region.get_many(range(6)) == dict.fromkeys(range(6), 200), most)
    print(short.get_or_load("x", lambda: 1))
"""


def test_loaders_without_a_loop_take_turns_and_hold_up_nothing_else(url):
    printed = run_python(LOADERS, url, MTCACHE_LOADER_THREADS="2")
    assert printed == "200 0\nno place in time\nTrue 2\n1\n"


def test_sessions_without_a_loop(url):
    with mtcache.connect_sync(url) as cache:
        sessions = cache.sessions(absolute_life=600)
        token, session = sessions.create("ada", {"role": "admin"})
        assert sessions.get(token).data == {"role": "admin"} and session.ends_at <= time.time() + 600
        assert sessions.update(token, {"role": "user"}) is True and sessions.get(token).data == {"role": "user"}
        assert [one.id for one in sessions.list("ada")] == [session.id]
        assert sessions.revoke(token) is True and sessions.get(token) is None
        assert sessions.revoke_all("ada") == 0


def test_what_happens_is_told_without_a_loop(url):
    with mtcache.connect_sync(url) as cache:
        region = cache.region("r", ttl=60)
        events, heard = cache.events(), []

        def listen():
            for event in events:
                heard.append(event["kind"])

        listening = threading.Thread(target=listen)
        region.get("x")
        listening.start()
        region.get_or_load("x", lambda: 1)
        deadline = time.monotonic() + 20
        while not {"miss", "load"} <= set(heard):
            assert time.monotonic() < deadline, heard
            time.sleep(0.01)
    listening.join(20)
    assert not listening.is_alive(), "it ends with the cache"
    assert heard[0] == "miss", "it hears of all since it was asked for"


def test_the_fixture_gives_an_empty_cache(mtcache_embedded):
    async def use():
        assert await mtcache_embedded.get("key") is None
        await mtcache_embedded.set("key", 1)
        return await mtcache_embedded.get("key")

    assert asyncio.run(use()) == 1
