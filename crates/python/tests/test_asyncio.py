"""Loops, cancellation, forks and threads: no hang, no crash, a clear error."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import textwrap
import threading
import warnings

import pytest

import mtcache
from conftest import run_python


async def test_a_call_is_what_asyncio_takes_for_a_coroutine(cache):
    await cache.set("key", 1)
    task = asyncio.create_task(cache.get("key"))
    assert await task == 1
    assert await asyncio.gather(cache.get("key"), cache.get("none")) == [1, None]
    assert await asyncio.wait_for(cache.get("key"), 5) == 1
    assert asyncio.iscoroutine(operation := cache.get("key"))
    operation.close()
    done, _ = await asyncio.wait([asyncio.ensure_future(cache.get("key"))])
    assert done.pop().result() == 1


async def test_tuples_exceptions_and_nothing_are_results_like_others(cache):
    await cache.command("SET", "key", "1")
    assert await cache.get("none") is None
    missing = (1, 2)
    assert await cache.get("none", missing) == (1, 2)
    error = ValueError("a value")
    assert await cache.get("none", error) is error


async def test_a_call_is_awaited_once(cache):
    operation = cache.get("key")
    await operation
    with pytest.raises(RuntimeError, match="already awaited"):
        await operation


def test_a_call_that_is_never_awaited_warns():
    cache = mtcache.connect("embedded://").wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.set("key", 1)
        gc.collect()
    assert [str(warning.message) for warning in caught] == ["a call of mtcache was never awaited"]
    assert cache.get("key").wait() is None, "and nothing has happened"
    cache.close()


async def test_many_calls_at_once_give_each_its_own(cache):
    await asyncio.gather(*(cache.set(f"key:{n}", {"n": n}) for n in range(500)))
    found = await asyncio.gather(*(cache.get(f"key:{n}") for n in range(500)))
    assert found == [{"n": n} for n in range(500)]


async def test_cancelling_one_cancels_nobody_else(own_server):
    async with mtcache.connect(own_server.url) as cache:
        await cache.set("key", 1)
        own_server.freeze()
        tasks = [asyncio.create_task(cache.get("key")) for _ in range(20)]
        write = asyncio.create_task(cache.set("other", 2))
        await asyncio.sleep(0.05)
        for task in [*tasks[::2], write]:
            task.cancel("enough")
        await asyncio.sleep(0.05)
        assert all(task.cancelled() for task in tasks[::2]) and write.cancelled()
        own_server.thaw()
        assert await asyncio.gather(*tasks[1::2]) == [1] * 10
        assert await cache.get("other") == 2, "a write goes on to its end"


async def test_a_timeout_of_the_caller_ends_the_wait(own_server):
    async with mtcache.connect(own_server.url) as cache:
        own_server.freeze()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(cache.get("key"), 0.1)
        own_server.thaw()
        assert await cache.get("key") is None


async def test_a_backend_that_does_not_answer_is_an_error_of_its_kind(own_server):
    async with mtcache.connect(own_server.url, response_timeout=0.2) as cache:
        own_server.freeze()
        with pytest.raises(mtcache.BackendTimeoutError) as caught:
            await cache.increment("n")
        own_server.thaw()
        assert caught.value.outcome_unknown and isinstance(caught.value, TimeoutError)


async def test_a_closed_cache_says_so(cache):
    region = cache.region("r", ttl=5)
    cache.close()
    assert cache.closed
    for call in (lambda: cache.get("key"), lambda: region.get("key"), lambda: cache.region("x", ttl=1)):
        with pytest.raises(mtcache.ClosedError):
            call()
    cache.close()


def test_one_cache_serves_loops_one_after_another(url):
    cache = mtcache.connect(url).wait()

    async def count():
        await asyncio.gather(*(cache.increment("n") for _ in range(20)))
        return await cache.get("n")

    assert [asyncio.run(count()) for _ in range(10)] == [20 * n for n in range(1, 11)]
    cache.close()


def test_one_cache_serves_loops_in_several_threads(url):
    cache = mtcache.connect(url).wait()
    failures = []

    async def work(thread):
        for n in range(50):
            await cache.set(f"{thread}:{n}", n)
            if await cache.get(f"{thread}:{n}") != n:
                failures.append((thread, n))

    threads = [threading.Thread(target=lambda t=t: asyncio.run(work(t))) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and not any(thread.is_alive() for thread in threads)
    cache.close()


def test_loops_leave_no_descriptors_behind(url):
    import os

    cache = mtcache.connect(url).wait()
    asyncio.run(asyncio.sleep(0))

    async def use():
        await asyncio.gather(cache.get("key"), cache.get("other"))

    asyncio.run(use())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        asyncio.run(use())
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    cache.close()


def test_a_loop_that_is_closed_over_pending_calls_harms_nobody(own_server):
    cache = mtcache.connect(own_server.url).wait()
    own_server.freeze()
    loop = asyncio.new_event_loop()
    task = loop.create_task(cache.get("key"))
    loop.run_until_complete(asyncio.sleep(0.05))
    logging.disable()
    loop.close()
    own_server.thaw()
    assert asyncio.run(_get(cache, "key")) is None
    del task
    gc.collect()
    logging.disable(logging.NOTSET)
    cache.close()


async def _get(cache, key):
    return await cache.get(key)


def test_a_task_in_another_context_keeps_its_context(url):
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)

    async def one(cache, n):
        variable.set(n)
        for _ in range(5):
            await cache.get("key")
            assert variable.get() == n

    async def main():
        async with mtcache.connect(url) as cache:
            await asyncio.gather(*(one(cache, n) for n in range(20)))

    asyncio.run(main())


FORK = """
    import asyncio, os, sys, warnings
    import mtcache
    warnings.simplefilter("ignore", DeprecationWarning)
    url = sys.argv[1]
    cache = mtcache.connect(url).wait()
    region = cache.region("near", ttl=60, near=True)
    cache.set("key", "parent").wait()
    from mtcache.compat.redis_client import RedisCacheManager
    manager = RedisCacheManager(redis_url=url)
    assert asyncio.run(manager.connect())
    child = os.fork()
    if child == 0:
        try:
            cache.get("key").wait()
        except mtcache.ForkedError:
            pass
        else:
            os._exit(3)
        async def own():
            async with mtcache.connect(url) as cache:
                await cache.set("child", 1)
                return await cache.get("child")
        ok = asyncio.run(own()) == 1
        async def drop_in():
            before = manager._connected, manager.stats()
            # A service that was forked once it had connected does not connect again.
            unasked = await manager.set("child", 2), await manager.get("child")
            return before, unasked, await manager.connect(), manager._connected, await manager.disconnect()
        ok = ok and asyncio.run(drop_in()) == ((False, {"failures": {}}), (True, 2), True, True, None)
        del cache, region
        os._exit(0 if ok else 4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    async def still():
        return await asyncio.gather(*(cache.get("key") for _ in range(10)))
    assert asyncio.run(still()) == ["parent"] * 10
    print("well")
"""


def test_a_child_is_told_and_opens_its_own_and_the_parent_goes_on(url):
    assert run_python(textwrap.dedent(FORK), url) == "well\n"


DEBUG = """
    import asyncio, gc, logging, sys, warnings
    warnings.simplefilter("error")
    logging.basicConfig(level=logging.WARNING)
    import mtcache
    async def main(url):
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        # What a busy machine makes slow is not the package's.
        loop.slow_callback_duration = 30
        async with mtcache.connect(url) as cache:
            region = cache.region("r", ttl=60, near=True)
            async def load(n):
                await asyncio.sleep(0)
                return {"n": n}
            for _ in range(3):
                await asyncio.gather(*(cache.set(f"k{n}", n) for n in range(100)))
                await asyncio.gather(*(cache.get(f"k{n}") for n in range(100)))
                await asyncio.gather(*(region.get_or_load(n % 10, lambda n=n: load(n)) for n in range(50)))
                await asyncio.gather(*(region.get_or_load((n, 1), lambda n=n: n) for n in range(5)))
            task = asyncio.create_task(cache.get("k1"))
            await asyncio.sleep(0)
            task.cancel()
    asyncio.run(main(sys.argv[1]))
    gc.collect()
    print("well")
"""


def test_asyncios_debug_mode_has_nothing_to_say(url):
    assert run_python(textwrap.dedent(DEBUG), url, PYTHONASYNCIODEBUG="1") == "well\n"


UVLOOP = """
    import asyncio, sys
    import uvloop, mtcache
    async def main(url):
        async with mtcache.connect(url) as cache:
            await asyncio.gather(*(cache.set(f"k{n}", n) for n in range(200)))
            assert await asyncio.gather(*(cache.get(f"k{n}") for n in range(200))) == list(range(200))
            region = cache.region("r", ttl=60)
            async def load():
                await asyncio.sleep(0.01)
                return 5
            assert await asyncio.gather(*(region.get_or_load("x", load) for _ in range(20))) == [5] * 20
            task = asyncio.create_task(cache.get("k1"))
            await asyncio.sleep(0)
            task.cancel()
    for _ in range(3):
        loop = uvloop.new_event_loop()
        loop.run_until_complete(main(sys.argv[1]))
        loop.close()
    print("well")
"""


def test_uvloop_is_a_loop_like_others(url):
    pytest.importorskip("uvloop")
    assert run_python(textwrap.dedent(UVLOOP), url) == "well\n"


def test_ctrl_c_ends_a_wait_without_a_loop(own_server):
    import _thread

    # A process that was started in the background ignores the signal, and Python then has no handler for it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    cache = mtcache.connect(own_server.url, response_timeout=30).wait()
    own_server.freeze()
    threading.Timer(0.3, _thread.interrupt_main).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            cache.get("key").wait()
    finally:
        signal.signal(signal.SIGINT, before)
    own_server.thaw()
    cache.close()


def test_a_wait_lets_other_threads_run(own_server):
    cache = mtcache.connect(own_server.url).wait()
    own_server.freeze()
    thread = threading.Thread(target=lambda: cache.get("key").wait())
    thread.start()
    counted = sum(1 for _ in range(100_000))
    own_server.thaw()
    thread.join(10)
    assert counted == 100_000 and not thread.is_alive()
    cache.close()


@pytest.mark.long
def test_memory_is_flat_over_a_million_calls(url):
    run_python(textwrap.dedent(FLAT), url, "1000000", timeout=900)


def test_memory_is_flat_over_many_calls(url):
    run_python(textwrap.dedent(FLAT), url, "40000", timeout=120)


FLAT = """
    import asyncio, gc, resource, sys
    import mtcache
    from mtcache.compat.cache_decorators import cached
    from mtcache.compat.redis_client import RedisCacheManager, buffer_signal, get_recent_signals
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    class Service:
        def __init__(self, manager):
            self.redis_cache = manager
        @cached(prefix="metrics", ttl=600)
        async def metrics(self, symbol):
            return {"symbol": symbol}
    CALLS = 15
    async def main(url, count):
        heard = 0
        async def listen(cache):
            nonlocal heard
            async for event in cache.events():
                heard += 1
        manager = RedisCacheManager(redis_url=url)
        assert await manager.connect()
        service = Service(manager)
        async with mtcache.connect(url) as cache:
            region = cache.region("r", ttl=600, near=True)
            listening = asyncio.create_task(listen(cache))
            async def load():
                return {"a": [1, 2, 3], "b": "text" * 10}
            async def work(n):
                await cache.set(f"k{n}", {"n": n, "text": "x" * 100})
                await cache.get(f"k{n}")
                await region.get_or_load(n, load)
                await region.get(n)
                await cache.get_many([f"k{n}", "none"])
                await cache.signals().push({"symbol": "BTC", "n": n}, max_signals=500)
                await cache.signals().recent(1)
                token, _ = await cache.sessions().create("ada", {"n": n})
                await cache.sessions().get(token)
                await cache.sessions().revoke(token)
                await manager.set(f"d{n}", {"n": n}, ttl=600)
                await manager.get(f"d{n}")
                await service.metrics(n)
                await buffer_signal(manager, {"symbol": "BTC", "n": n}, max_signals=500)
                assert len(await get_recent_signals(manager, 1)) == 1
            async def rounds(calls):
                for _ in range(calls // (64 * CALLS) + 1):
                    await asyncio.gather(*(work(n) for n in range(64)))
            await rounds(max(20_000, count // 10))
            gc.collect()
            before, heard_before = resident(), heard
            await rounds(count)
            gc.collect()
            grown = resident() - before
            assert grown < 8 * 1024 * 1024, f"{grown} bytes more after {count} calls"
            assert heard > heard_before
            listening.cancel()
        await manager.disconnect()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


REST = """
    import asyncio, sys, time
    import mtcache
    async def main(url):
        async with mtcache.connect(url) as cache:
            for _ in range(500):
                await cache.get("key")
            # As soon as it may be that long asleep, it is.
            deadline = time.monotonic() + 20
            while True:
                before = time.process_time()
                await asyncio.sleep(0.2)
                if time.process_time() - before < 0.02:
                    break
                assert time.monotonic() < deadline, "it is busy without calls"
            assert await asyncio.gather(*(cache.get("key") for _ in range(100))) == [None] * 100
    asyncio.run(main(sys.argv[1]))
    print("well")
"""


@pytest.mark.parametrize("microseconds", ["", "0", "500"])
def test_nothing_is_busy_between_calls(url, microseconds):
    settings = {"MTCACHE_SPIN_MICROS": microseconds} if microseconds else {}
    assert run_python(textwrap.dedent(REST), url, **settings) == "well\n"
