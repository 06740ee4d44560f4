"""What regions can do besides reading and loading one entry, on every backend."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
import time

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mtcache
from conftest import until


async def test_a_batch_is_loaded_by_one_call_for_what_is_missing(cache):
    region = cache.region("r", ttl=60, none_ttl=5)
    await region.set(("b", 1), "cached")
    asked = []

    async def load(ids):
        asked.append(ids)
        await asyncio.sleep(0)
        return {"a": {"n": 1}, 7: [7]}

    ids = ["a", ("b", 1), 7, "none"]
    expected = {"a": {"n": 1}, ("b", 1): "cached", 7: [7], "none": None}
    assert await region.get_or_load_many(iter(ids), load) == expected
    assert asked == [["a", 7, "none"]]
    assert await region.get_or_load_many(ids, load) == expected
    assert asked == [["a", 7, "none"]], "that there is none is known now"
    assert await region.get_or_load_many([], load) == {}
    found = await region.get_or_load_each(["a", "new"], lambda ids: {})
    assert (found["a"].value, found["a"].source, found["new"].value) == ({"n": 1}, "backend", None)


async def test_concurrent_batches_share_their_loads_and_fail_by_entry(cache):
    region = cache.region("r", ttl=60, max_batch=2)
    calls = []

    async def load(ids):
        calls.extend(ids)
        await asyncio.sleep(0.05)
        return {id: {"id": id} for id in ids}

    found = await asyncio.gather(*(region.get_or_load_many(["a", "b", "c"], load) for _ in range(20)))
    assert sorted(calls) == ["a", "b", "c"] and all(one == found[0] for one in found)
    assert len({id(one["a"]) for one in found}) == 20

    def fail(ids):
        raise LookupError(ids)

    with pytest.raises(mtcache.LoaderError) as caught:
        await region.get_or_load_many(["a", "x"], fail)
    assert isinstance(caught.value.__cause__, LookupError)
    each = await region.get_or_load_each(["a", "x"], fail)
    assert each["a"].value == {"id": "a"} and isinstance(each["x"], mtcache.LoaderError)
    with pytest.raises(mtcache.LoaderError):
        await region.get_or_load_many(["y"], lambda ids: "no mapping")


async def test_a_region_is_warmed_up_at_the_pace_that_is_asked_for(cache, tmp_path):
    region = cache.region("r", ttl=60, near=True)
    await region.set_many({"a": 1, ("b", "1h"): 2})
    told = []
    report = await region.warm_up(["a", ("b", "1h"), "none"], progress=told.append)
    assert report == mtcache.WarmUpReport(asked=3, found=2, loaded=0, missing=1, failed=0)

    async def all_told():
        return told[-1:] == [report]

    await until(all_told)
    assert [so_far.asked for so_far in told] == [1, 2, 3]
    assert await region.get("a") == 1

    async def load(id):
        if id == "bad":
            raise LookupError(id)
        return {"id": id}

    report = await region.warm_up(["c", "bad", "a"], load, at_once=2)
    assert (report.found, report.loaded, report.failed) == (1, 1, 1) and await region.get("c") == {"id": "c"}
    began = time.monotonic()
    await region.warm_up(range(5), per_second=20)
    assert time.monotonic() - began >= 0.2
    hot = tmp_path / "hot"
    hot.write_text("# symbols\na\n\nb:1h\n")
    assert mtcache.hot_keys(hot) == [("a",), ("b", "1h")]
    assert (await region.warm_up(mtcache.hot_keys(str(hot)))).found == 2
    with pytest.raises(OSError):
        mtcache.hot_keys(tmp_path / "none")


async def test_a_warm_up_that_is_cancelled_asks_no_more(cache):
    region = cache.region("r", ttl=60)
    asked = []

    async def load(id):
        asked.append(id)
        return id

    task = asyncio.create_task(region.warm_up(range(10_000), load, per_second=100))

    async def begun():
        return len(asked) >= 2

    await until(begun)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.1)
    so_far = len(asked)
    await asyncio.sleep(0.2)
    assert task.cancelled() and len(asked) == so_far < 1000


VALUES = {
    "text": "12",
    "quoted": '"12"',
    "none": None,
    "numbers": [1, -1, 2**63, 1.5, -0.0, 5e-324, True, False],
    "nested": {"a": [{"b": {}}], "": "x" * 5000},
}


@pytest.mark.parametrize("codec", ["json", "messagepack"])
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
async def test_a_framed_value_comes_back_as_it_was(cache, codec, compression):
    framing = mtcache.Framing(compression=compression, compress_above=100)
    region = cache.region("r", ttl=60, framed=framing, codec=codec)
    for value in [VALUES, *VALUES.values()]:
        await region.set("x", value)
        found = await region.get("x", mtcache.MISSING)
        assert found == value and repr(found) == repr(value)
    read = await region.read("x")
    assert read.age_bound == "exact" and 0 <= read.age < 5
    length = await cache.command("STRLEN", cache.full_key("r:x"))
    assert length < 1000 if compression != "none" else length > 5000
    await cache.set("r:x", "words")
    assert await region.get("x") == "words", "a plain value is read as plain regions read theirs"
    assert await region.get_or_load("y", lambda: VALUES) == VALUES == await region.get("y")


async def test_message_pack_keeps_what_json_has_no_form_for(cache):
    region = cache.region("r", ttl=60, framed=True, codec="messagepack")
    value = {"bytes": b"\x00\xff", "inf": math.inf, 5: (1, 2), "big": 2**64 - 1, "small": -(2**63)}
    await region.set("x", value)
    assert await region.get("x") == {**value, 5: [1, 2]}
    await region.set("x", math.nan)
    assert math.isnan(await region.get("x"))
    loop = []
    loop.append(loop)
    for refused in (2**64, "\ud800", loop):
        with pytest.raises(mtcache.UnencodableError):
            await region.set("x", refused)
    json = cache.region("j", ttl=60, framed=True)
    with pytest.raises(mtcache.UnencodableError):
        await json.set("x", b"bytes")


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.binary()
        | st.integers(-(2**63), 2**64 - 1),
        lambda inside: st.lists(inside) | st.dictionaries(st.text() | st.integers(0, 9) | st.binary(), inside),
        max_leaves=30,
    )
)
@settings(max_examples=300, deadline=None)
def test_message_pack_comes_back_exactly(value):
    with mtcache.connect_sync("embedded://") as cache:
        region = cache.region("r", ttl=60, framed=True, codec="messagepack")
        region.set("x", [value])
        found = region.get("x")
    assert found == [value] and repr(found) == repr([value])


async def test_a_tag_takes_all_that_carries_it(cache):
    region = cache.region("sizing", ttl=60, framed=mtcache.Framing(tags=["all"]), near=True)
    btc = region.tagged("symbol:BTC")
    assert await btc.get_or_load(("BTC", "trend"), lambda: 0.25) == 0.25
    await region.tagged("symbol:ETH", "slow").set(("ETH", "trend"), 0.5)
    await cache.invalidate_tag("symbol:BTC")
    assert await region.get_many([("BTC", "trend"), ("ETH", "trend")]) == {("ETH", "trend"): 0.5}
    await btc.set(("BTC", "trend"), 0.3)
    assert await region.get(("BTC", "trend")) == 0.3
    await cache.invalidate_tag("all", "unused")
    assert await region.get_many([("BTC", "trend"), ("ETH", "trend")]) == {}
    assert cache.stats()["sizing"]["fallen"] >= 2
    with pytest.raises(mtcache.ConfigError):
        cache.region("plain", ttl=60).tagged("x")
    with pytest.raises(mtcache.BadKeyError):
        region.tagged("")


@dataclasses.dataclass
class Price:
    symbol: str
    price: float


async def test_values_of_older_and_newer_schemas_are_read_as_configured(cache):
    old = cache.region("r", ttl=60, framed=True)
    await old.set("x", {"symbol": "BTC", "cents": 150})
    framing = mtcache.Framing(schema=2)
    new = cache.region("r", ttl=60, model=Price, framed=framing)
    with pytest.raises(mtcache.UndecodableError, match="schema 1"):
        await new.get("x")
    reader = new.reads_schema(1, lambda stored: {"symbol": stored["symbol"], "price": stored["cents"] / 100})
    assert await reader.get("x") == Price("BTC", 1.5)
    assert await reader.tagged("t").get_or_load("y", lambda: Price("ETH", 2.0)) == Price("ETH", 2.0)
    assert await old.get("y", "newer") == "newer", "a newer schema is a miss to an old reader"
    strict = cache.region("r", ttl=60, framed=mtcache.Framing(newer="error"))
    with pytest.raises(mtcache.UndecodableError):
        await strict.get("y")
    failing = new.reads_schema(1, lambda stored: stored["no such field"])
    with pytest.raises(mtcache.UndecodableError) as caught:
        await failing.get("x")
    assert isinstance(caught.value.__cause__, KeyError)


async def test_processes_that_lease_load_once_between_them(url):
    if url == "embedded://":
        pytest.skip("another cache is another engine")
    caches = [await mtcache.connect(url) for _ in range(4)]
    regions = [cache.region("r", ttl=60, lease=5) for cache in caches]
    calls = 0

    async def load():
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.2)
        return {"n": calls}

    found = await asyncio.gather(*(region.get_or_load("x", load) for region in regions for _ in range(5)))
    assert calls == 1 and found == [{"n": 1}] * 20
    for cache in caches:
        cache.close()


async def test_a_read_ends_when_its_caller_says_so(cache):
    region = cache.region("r", ttl=60)
    release = asyncio.Event()

    async def slow():
        await release.wait()
        return "late"

    with pytest.raises(mtcache.DeadlineError):
        await region.get_or_load("x", slow, deadline=0.05)
    release.set()

    async def stored():
        return await region.get("x") == "late"

    await until(stored)
    assert await region.get("x", deadline=5, backend_timeout=5) == "late"


async def test_a_silent_backend_is_waited_for_no_longer_than_a_read_allows(own_server):
    async with mtcache.connect(own_server.url, response_timeout=30) as cache:
        region = cache.region("r", ttl=60)
        own_server.freeze()
        with pytest.raises(mtcache.BackendTimeoutError):
            await region.get("x", backend_timeout=0.1)
        own_server.thaw()
        assert await region.get("x") is None


async def test_entries_below_another_go_with_it(cache):
    region = cache.region("r", ttl=60)
    await region.set_many({"BTC": 1, ("BTC", "1h"): 2, "BTCUSDT": 3})
    assert await region.invalidate_under("BTC") == 2
    assert await region.get_many(["BTC", ("BTC", "1h"), "BTCUSDT"]) == {"BTCUSDT": 3}
    assert await region.expire("BTCUSDT", 5) and 4 < await region.time_left("BTCUSDT") <= 5
    assert await region.expire("none", 5) is False


async def test_what_does_not_fit_the_model_is_a_miss_and_counted_where_that_is_asked_for(cache):
    class Sentiment(pydantic.BaseModel):
        score: float

    region = cache.region(Sentiment, ttl=60, undecodable="miss", near=True)
    loads = []

    async def load():
        loads.append(1)
        await asyncio.sleep(0.02)
        return Sentiment(score=len(loads))

    async def spoil():
        await cache.set("sentiment:x", {"score": "much"}, ttl=60)

    await spoil()
    assert await region.get("x", "default") == "default" and await region.read("x") is None
    assert await region.get_many(["x"]) == {} and region.peek("x") is None
    stats = region.stats()
    assert stats["undecodable"] >= 3 and stats["hits"] == stats["near_hits"] == 0 and stats["misses"] >= 3
    found = await asyncio.gather(*(region.get_or_load("x", load) for _ in range(20)))
    assert found == [Sentiment(score=1)] * 20 and len(loads) == 1
    assert await region.get("x") == Sentiment(score=1), "the load has replaced it"
    await spoil()
    found = await region.get_or_load_many(["x", "y"], lambda ids: {id: Sentiment(score=5) for id in ids})
    assert found == {"x": Sentiment(score=5), "y": Sentiment(score=5)} == await region.get_many(["x", "y"])
    strict = cache.region("sentiment", ttl=60, model=Sentiment)
    await spoil()
    for call in (strict.get("x"), strict.read("x"), strict.get_or_load("x", load), strict.get_many(["x"])):
        with pytest.raises(mtcache.UndecodableError):
            await call
    each = await strict.get_or_load_each(["x", "y"], lambda ids: {})
    assert isinstance(each["x"], mtcache.UndecodableError) and each["y"].value == Sentiment(score=5)


async def test_shadow_mode_serves_the_loader_and_compares(cache):
    region = cache.region("r", ttl=60, near=True)
    await cache.set("r:same", '{ "a" : [ 1 ] }', ttl=60)
    await cache.set("r:other", {"a": [1, 2]}, ttl=60)
    differences = []

    async def listen():
        async for event in cache.events():
            if event["kind"] == "shadow_differed":
                differences.append(event["places"])

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)
    cache.set_mode("r", "shadow")
    assert cache.mode("r") == region.mode == "shadow"
    assert await region.get_or_load("same", lambda: {"a": [1]}) == {"a": [1]}
    assert await region.get_or_load("other", lambda: {"a": [1, 3]}) == {"a": [1, 3]}
    stats = region.stats()
    assert (stats["shadow_equal"], stats["shadow_different"]) == (1, 1)

    async def told():
        return differences == [["/a/1"]]

    await until(told)
    listening.cancel()
    region.mode = "on"
    with pytest.raises(KeyError):
        cache.mode("no such region")


async def test_options_are_reloaded_while_a_region_is_open(cache):
    region = cache.region("r", ttl=60)
    assert region.reload(ttl=5, near=True) == (["ttl"], ["near"])
    await region.set("x", 1)
    assert 4 < await region.time_left("x") <= 5
    for wrong, error in [({"ttll": 5}, TypeError), ({"ttl": 0}, mtcache.BadTtlError), ({"codec": "xml"}, ValueError)]:
        with pytest.raises(error):
            region.reload(**wrong)
        with pytest.raises(error):
            cache.region("other", **{"ttl": 5, **wrong})
    with pytest.raises(mtcache.ConfigError):
        cache.region("other", ttl=60, codec="messagepack")
    with pytest.raises(mtcache.ConfigError):
        cache.region("other", ttl=60, lease=0.001)


async def test_health_says_what_is_not_as_it_should_be(own_server):
    async with mtcache.connect(own_server.url, response_timeout=1, backoff=(0.05, 0.2), breaker=(3, 0.5, 10)) as cache:
        health = cache.health()
        assert health.is_ok and health.backend_is_up and not health.reasons, health
        assert cache.breaker == "closed" and str(own_server.port) in health.backend
        cache.region("r", ttl=5).mode = "killed"
        assert cache.health().switched == {"r": "killed"} and cache.health().level == "degraded"
        own_server.kill()

        async def down():
            try:
                await cache.get("key")
            except mtcache.CacheError:
                pass
            return cache.health().level == "down"

        await until(down)
        (error, *_) = cache.health().last_errors
        assert error.ago < 60 and error.times >= 1 and error.message


async def test_what_health_tells_has_the_names_that_are_documented(own_server):
    async with mtcache.connect(own_server.url, response_timeout=0.3) as cache:
        await cache.command("ACL", "SETUSER", "default", "-client|tracking")
        cache.region("r", ttl=60, near=True)

        async def refused():
            return cache.near_state == "refused"

        await until(refused)
        assert cache.health().tracking.startswith("refused: ")
        own_server.freeze()
        with pytest.raises(mtcache.BackendTimeoutError):
            await cache.get("key")
        kinds = {error.kind for error in cache.health().last_errors}
        own_server.thaw()
        assert "BackendTimeout" in kinds
        assert all(issubclass(getattr(mtcache, f"{kind}Error"), mtcache.CacheError) for kind in kinds), kinds


async def test_counters_of_all_processes_are_added_up(url):
    if url == "embedded://":
        pytest.skip("another cache is another engine")
    async with mtcache.connect(url, publish_stats=0.1) as one, mtcache.connect(url, publish_stats=0.1) as other:
        for cache in (one, other):
            await cache.region("r", ttl=60).get("x")

        async def added():
            published = await one.published_stats()
            return published["regions"].get("r", {}).get("misses") == 2 and len(published["processes"]) == 2

        await until(added)


async def test_how_long_stale_reads_last_is_measured(cache, url):
    region = cache.region("r", ttl=60, near=True)

    async def is_on():
        await region.get("x")
        return url == "embedded://" or cache.near_state == "on"

    await until(is_on)
    measured = await cache.probe_stale_reads()
    stats = cache.stale_reads()
    if measured is None:
        assert stats["count"] == 0
    else:
        assert 0 < measured < 10 and stats["count"] == 1 and stats["p50"] <= stats["max"]


def test_without_a_loop_regions_can_do_the_same(url):
    with mtcache.connect_sync(url, prefix="p:") as cache:
        plain = cache.region("plain", ttl=60, none_ttl=60)
        calls = []

        def load(ids):
            calls.append(ids)
            time.sleep(0.05)
            return {id: {"id": id} for id in ids if id != "none"}

        found = []
        threads = [
            threading.Thread(target=lambda: found.append(plain.get_or_load_many(["a", "none"], load)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert found == [{"a": {"id": "a"}, "none": None}] * 8 and calls == [["a", "none"]]
        each = plain.get_or_load_each(["a", "b"], load, deadline=10)
        assert each["a"].source == "backend" and each["b"].source == "loader"
        assert plain.read_or_load("c", lambda: 3).value == 3 and plain.warm_up(["a", "x"]).found == 1
        assert plain.warm_up(["a", "w"], lambda id: f"loaded {id}").loaded == 1 and plain.get("w") == "loaded w"
        framed = cache.region("framed", ttl=60, framed=True)
        framed.tagged("t").set("x", 1)
        assert framed.get("x") == 1
        cache.invalidate_tag("t")
        assert framed.get("x") is None and cache.full_key("k") == "p:k" and cache.prefix == "p:"
        assert plain.invalidate_under("a") == 1 and plain.mode == "on" and cache.mode("plain") == "on"
        plain.mode = "killed"
        assert plain.name == "plain" and cache.health().switched == {"plain": "killed"}
        models = cache.region("models", ttl=60, model=Price, undecodable="miss")
        cache.set("models:x", {"symbol": 5}, ttl=60)
        assert models.get("x") is None and models.get_or_load("x", lambda: Price("BTC", 1.0)) == Price("BTC", 1.0)
        cache.set("models:x", {"symbol": 5}, ttl=60)
        assert models.get_or_load_many(["x"], lambda ids: {"x": Price("ETH", 1.0)}) == {"x": Price("ETH", 1.0)}
        with pytest.raises(TypeError):
            cache.region("r", ttl=5, no_such_option=1)
    with pytest.raises(TypeError):
        mtcache.connect_sync(url, no_such_option=1)


async def test_the_last_known_value_is_served_when_a_loader_fails(cache):
    region = cache.region("r", ttl=0.1, stale=60)

    async def fail():
        raise LookupError("away")

    async def is_known():
        # Known is what this process has read, once it hears of changes elsewhere.
        await region.get_or_load("x", lambda: {"n": 1})
        await region.get("x")
        await asyncio.sleep(0.15)
        try:
            read = await region.read_or_load("x", fail)
        except mtcache.LoaderError:
            return False
        return read.is_stale and read.value == {"n": 1}

    await until(is_known)
    with pytest.raises(mtcache.LoaderError):
        await region.get_or_load("x", fail, fresh_only=True)
    await region.invalidate("x")
    with pytest.raises(mtcache.LoaderError):
        await region.get_or_load("x", fail)


async def test_a_slow_loader_is_waited_for_no_longer_than_the_soft_timeout_where_there_is_a_stale_value(cache):
    region = cache.region("r", ttl=0.1, stale=60, framed=True, soft_timeout=0.05)
    await region.set("x", "old")
    release = asyncio.Event()

    async def slow():
        await release.wait()
        return "new"

    await asyncio.sleep(0.15)
    read = await region.read_or_load("x", slow)
    assert read.value == "old" and read.is_stale
    release.set()

    async def stored():
        return await region.get("x") == "new" or (await region.read_or_load("x", slow)).value == "new"

    await until(stored)


async def test_a_value_is_loaded_anew_before_its_end(cache):
    region = cache.region("r", ttl=2, near=True, eager_refresh=0.1)
    loads = []

    async def load():
        loads.append(1)
        return {"n": len(loads)}

    assert await region.get_or_load("x", load) == {"n": 1}

    async def renewed():
        return (await region.get_or_load("x", load))["n"] >= 2

    await until(renewed)
    with pytest.raises(mtcache.ConfigError):
        cache.region("other", ttl=5, eager_refresh=1.5)


async def test_what_is_stale_or_due_in_a_batch_is_loaded_anew_by_one_call_behind_its_back(cache):
    stale = cache.region("s", ttl=0.1, stale=60, framed=True, stale_while_revalidate=True)
    eager = cache.region("e", ttl=60, eager_refresh=0.001)
    for region in (stale, eager):
        await region.set_many({"a": 1, "b": 2})
        await asyncio.sleep(0.15)
        calls = []

        async def load(missing, calls=calls):
            calls.append(missing)
            return dict.fromkeys(missing, 3)

        reads = await region.get_or_load_each(["a", "b"], load)
        assert [(read.value, read.is_stale) for read in reads.values()] == [(1, region is stale), (2, region is stale)]

        async def renewed(region=region, load=load):
            reads = await region.get_or_load_each(["a", "b"], load)
            return all(read.value == 3 for read in reads.values())

        await until(renewed)
        assert calls[0] == ["a", "b"]


async def test_a_loader_is_told_what_was_known_and_says_more_than_a_value(cache):
    region = cache.region("r", ttl=60, stale=60, framed=True)
    told = []

    async def load(previous):
        told.append(previous)
        if previous is None:
            return mtcache.Loaded({"n": 1}, ttl=0.1, validator="v1")
        return mtcache.Loaded.not_modified(ttl=30)

    first = await region.get_or_reload("x", load)
    assert (first.value, first.source) == ({"n": 1}, "loader") and await region.time_left("x") < 61
    await asyncio.sleep(0.15)
    again = await region.get_or_reload("x", load)
    assert (again.value, again.source, again.is_stale) == ({"n": 1}, "loader", False)
    assert told == [None, mtcache.Previous({"n": 1}, b"v1")]
    assert (await region.get_or_reload("y", lambda previous: "plain")).value == "plain"
    assert (await region.get_or_reload("z", lambda previous: mtcache.Loaded(5, is_kept=False))).value == 5
    assert await region.get("z") is None
    prices = cache.region(Price, ttl=60)
    assert (await prices.get_or_reload("x", lambda _: mtcache.Loaded(Price("BTC", 1.0)))).value == Price("BTC", 1.0)
    with pytest.raises(mtcache.LoaderError):
        await region.get_or_reload("new", lambda previous: mtcache.Loaded.not_modified())
