"""The end of the interpreter: whatever is under way, it ends at once and well, and says nothing."""

from __future__ import annotations

import textwrap

import pytest

from conftest import run_python

PROGRAM = """
    import asyncio, sys, threading, time
    import mtcache
    cache = mtcache.connect(sys.argv[1]).wait()
    cache.region("near", ttl=60, near=True)
    sync = mtcache.SyncCache(cache)
    began = threading.Event()
    def beside(call, *args):
        threading.Thread(target=call, args=args, daemon=True).start()
    def busy():
        while True:
            began.set()
            sum(range(1000))
    {}
    began.wait()
    print("well")
"""

UNDER_WAY = {
    "nothing": """
        asyncio.run(asyncio.wait_for(cache.get("key"), 10))
        began.set()
    """,
    "calls that a loop has left": """
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(cache.get("key")) for _ in range(10)]
        for task in tasks:
            task._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        began.set()
    """,
    "calls of other threads": """
        def spin():
            while True:
                cache.get("key").wait()
                sync.recent_signals(5)
                began.set()
        for _ in range(4):
            beside(spin)
    """,
    "a thread that is waited for after all": """
        import atexit
        heard = []
        def use():
            try:
                while True:
                    cache.get("key").wait()
                    began.set()
            except mtcache.ClosedError:
                heard.append(1)
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        # Handlers run from the last to the first, so this is the one before the package's.
        atexit.unregister(mtcache.cache._close_all)
        atexit.register(lambda: (thread.join(), heard or print("it did not hear")))
        atexit.register(mtcache.cache._close_all)
    """,
    "a loader that sleeps in a thread of the package": """
        def load():
            began.set()
            time.sleep(600)
        beside(sync.region("r", ttl=60).get_or_load, "x", load)
    """,
    "loaders that take naps in threads of the package": """
        def load(*names):
            while True:
                began.set()
                time.sleep(0.0005)
        region = sync.region("r", ttl=60)
        for name in range(4):
            beside(region.get_or_load, name, load)
        beside(region.get_or_load_many, ["x", "y"], load)
        beside(region.get_or_reload, "z", load)
    """,
    "a loader that computes in a thread of the package": """
        beside(sync.region("r", ttl=60).get_or_load, "x", busy)
    """,
    "a coroutine as loader in a thread of the package": """
        async def load():
            while True:
                began.set()
                await asyncio.sleep(0.0005)
        beside(sync.region("r", ttl=60).get_or_load, "x", load)
    """,
    "a loader that asyncio.run has cancelled": """
        async def load():
            began.set()
            await asyncio.sleep(600)
        async def main():
            await asyncio.wait([asyncio.ensure_future(cache.region("r", ttl=60).get_or_load("x", load))], timeout=0.1)
        asyncio.run(main())
    """,
    "a loader in a loop of another thread": """
        async def load():
            await cache.command("PING")
            busy()
        beside(asyncio.run, cache.region("r", ttl=60).read_or_load("x", load))
    """,
    "a task of another thread that goes on with a result": """
        async def main():
            await cache.command("PING")
            busy()
        beside(asyncio.run, main())
    """,
    "the same in uvloop": """
        import uvloop
        async def main():
            await cache.command("PING")
            busy()
        beside(uvloop.new_event_loop().run_until_complete, main())
    """,
    "a model that is made in another thread": """
        import dataclasses
        @dataclasses.dataclass
        class Price:
            price: float
            def __post_init__(self):
                busy()
        region = cache.region("price", ttl=60)
        region.set("BTC", {"price": 1.0}).wait()
        beside(sync.region(Price, ttl=60).get, "BTC")
    """,
    "a walk over all keys": """
        cache.set_many({f"r:{n}": n for n in range(2000)}).wait()
        def walk():
            while True:
                began.set()
                sync.region("r", ttl=60).invalidate_all()
        beside(walk)
    """,
}


@pytest.mark.parametrize("what", UNDER_WAY)
def test_the_interpreter_ends_whatever_is_under_way(url, what):
    if "uvloop" in what:
        pytest.importorskip("uvloop")
    program = textwrap.dedent(PROGRAM).format(textwrap.dedent(UNDER_WAY[what]).strip())
    assert run_python(program, url, timeout=60) == "well\n"
