"""With the engine in this process: neither Python's lock nor a loop is held up by what takes its time."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest

import mtcache

COUNT = 20_000


class Others:
    """Another thread that does as little as it can, as often as it gets to run."""

    def __init__(self) -> None:
        self.turns: list[float] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over:
            self.turns.append(time.perf_counter())
            time.sleep(0.0005)

    def __enter__(self) -> Others:
        self._interval = sys.getswitchinterval()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.setswitchinterval(self._interval)
        self._is_over = True
        self._thread.join()

    def run_during(self, call, tries: int = 1) -> bool:
        """Whether the thread has run during a call, or one of several: on a busy machine it may come too late for a short one."""
        # It gets to run only where this one gives the lock away.
        sys.setswitchinterval(1000)
        before = len(self.turns)
        for _ in range(tries):
            call()
            if len(self.turns) > before:
                break
        after = len(self.turns)
        sys.setswitchinterval(self._interval)
        return after > before


def filled(directory="") -> mtcache.SyncCache:
    cache = mtcache.connect_sync(f"embedded://{directory}")
    cache.set_many({f"r:{n}": {"n": n} for n in range(COUNT)})
    cache.hset("hash", {str(n): n for n in range(COUNT)})
    cache.zadd("set", {str(n): n for n in range(COUNT)})
    return cache


NAMES = range(COUNT)
KEYS = [f"r:{n}" for n in NAMES]
LONG = {
    "get_many": lambda cache: cache.get_many(KEYS),
    "set_many": lambda cache: cache.set_many(dict.fromkeys(KEYS, 1)),
    "exists": lambda cache: cache.exists(*KEYS),
    "delete_many": lambda cache: cache.delete_many(KEYS),
    "flush_database": lambda cache: cache.flush_database(),
    "hgetall": lambda cache: cache.hgetall("hash"),
    "hset": lambda cache: cache.hset("hash", dict.fromkeys(map(str, NAMES), 1)),
    "zrange": lambda cache: cache.zrange("set"),
    "zadd": lambda cache: cache.zadd("set", dict.fromkeys(map(str, NAMES), 1)),
    "zrem": lambda cache: cache.zrem("set", *map(str, NAMES)),
    "command": lambda cache: cache.command("KEYS", "*"),
    "region.get_many": lambda cache: cache.region("r", ttl=60).get_many(NAMES),
    "region.set_many": lambda cache: cache.region("r", ttl=60).set_many(dict.fromkeys(NAMES, 1)),
    "region.get_or_load_many": lambda cache: cache.region("r", ttl=60).get_or_load_many(NAMES, dict.fromkeys),
    "region.invalidate_all": lambda cache: cache.region("r", ttl=60).invalidate_all(),
    "region.invalidate_under": lambda cache: cache.region("r", ttl=60).invalidate_under(1),
}


@pytest.mark.parametrize("call", LONG)
def test_other_threads_run_during_long_calls(call):
    with filled() as cache, Others() as others:
        assert others.run_during(lambda: LONG[call](cache), tries=50)


def test_other_threads_run_while_a_directory_is_opened_and_closed(tmp_path):
    with Others() as others:
        cache = filled(tmp_path)
        assert others.run_during(cache.close)
        opened = []
        assert others.run_during(lambda: opened.append(mtcache.connect_sync(f"embedded://{tmp_path}")))
        assert opened[0].get("r:1") == {"n": 1}
        opened[0].close()


def test_other_threads_run_while_many_small_values_are_decoded():
    with mtcache.connect_sync("embedded://") as cache, Others() as others:
        keys = [f"k{n}" for n in range(10)]
        cache.set_many(dict.fromkeys(keys, {"names": [str(n) for n in range(15_000)]}))
        asked = keys * 20

        def has_let_others_run():
            others.turns.clear()
            began = time.perf_counter()
            cache.get_many(asked)
            took = time.perf_counter() - began
            # Not only at its edges, where calls begin and end.
            return any(0.2 * took < turn - began < 0.8 * took for turn in others.turns)

        # On a busy machine the other thread may not get a processor in time, as in the calls above.
        assert any(has_let_others_run() for _ in range(50))


SIZE = 16 * 1024 * 1024
LARGE = {
    "set": lambda cache, value: cache.set("new", value),
    "set_many": lambda cache, value: cache.set_many({"new": value}),
    "get": lambda cache, value: cache.get("key"),
    "get_bytes": lambda cache, value: cache.get_bytes("key"),
    "command": lambda cache, value: cache.command("GET", "key"),
    "region.set": lambda cache, value: cache.region("r", ttl=60).set("new", value),
}


@pytest.mark.parametrize("call", LARGE)
def test_other_threads_run_while_a_large_value_is_copied(call):
    value = b"\xff" * SIZE
    with mtcache.connect_sync("embedded://") as cache, Others() as others:
        cache.set("key", value)
        assert others.run_during(lambda: LARGE[call](cache, value), tries=50)


@pytest.mark.parametrize("size", [256 * 1024 + more for more in (-1, 0, 1)])
def test_large_values_come_back_as_they_were(url, size):
    text, data = "é" + "x" * (size - 2), b"\xff" * size
    with mtcache.connect_sync(url) as cache:
        packed = cache.region("packed", ttl=60, framed=True, codec="messagepack")
        for value in (text, data, bytearray(data), memoryview(data)):
            plain = text if value is text else data
            cache.set("key", value)
            cache.set_many({"other": value})
            assert cache.get("key") == cache.get("other") == plain
            stored = plain.encode() if value is text else data
            assert cache.get_bytes("key") == cache.command("GET", "key") == stored
            packed.set("key", value)
            assert packed.get("key") == plain


async def turns_during(call) -> int:
    """How many turns a loop makes until a call has ended."""
    task, turns = asyncio.ensure_future(call), 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    return turns


async def test_a_loop_goes_on_during_what_takes_its_time_and_waits_for_what_does_not(tmp_path):
    async with mtcache.connect("embedded://") as cache:
        region = cache.region("r", ttl=60)
        assert await turns_during(cache.set_many(dict.fromkeys(KEYS, 1))) > 1
        assert await turns_during(cache.get_many(KEYS)) > 1
        assert await turns_during(region.get_many(NAMES)) > 1
        assert await turns_during(region.invalidate_under(1)) > 1
        assert await turns_during(region.invalidate_all()) > 1
        assert await turns_during(cache.flush_database()) > 1
        assert await turns_during(cache.set("key", 1)) == 1
        assert await turns_during(cache.get("key")) == 1
        assert await turns_during(cache.get_many(KEYS[:100])) == 1

    async def opened():
        async with mtcache.connect(f"embedded://{tmp_path}") as cache:
            await cache.set("key", 1)

    assert await turns_during(opened()) > 1


async def test_what_runs_aside_goes_on_when_nobody_waits_for_it_any_more():
    async with mtcache.connect("embedded://") as cache:
        await cache.set_many(dict.fromkeys(KEYS, 1))
        task = asyncio.ensure_future(cache.region("r", ttl=60).invalidate_all())
        await asyncio.sleep(0)
        task.cancel()
        deadline = asyncio.get_running_loop().time() + 20
        while await cache.exists(*KEYS):
            assert asyncio.get_running_loop().time() < deadline, "the walk has ended with its wait"
            await asyncio.sleep(0.01)
