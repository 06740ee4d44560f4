"""Gets of one value, from one server, by mtcache, redis-py and valkey-glide in turn; and what needs no server.

    scripts/python-package.sh build && pip install target/python/release/mtcache-*.whl redis hiredis valkey-glide uvloop
    python crates/python/bench/compare.py --server target/release/mtcache

Starts the server itself, on a port of its own. Prints medians of the rounds, in operations per second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import mtcache

VALUE = {
    "symbol": "BTCUSDT", "price": 45000.50, "volume": 1234567.89, "timestamp": 1767323045.678901, "open": "44900.10",
    "high": "45100.00", "low": "44800.55", "close": "45000.50", "source": "exchange", "trades": 18231,
}


def json_loads_per_second(seconds: float) -> float:
    text = json.dumps(VALUE)
    return rate_of(lambda: json.loads(text), seconds)


def rate_of(call, seconds: float) -> float:
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(1000):
            call()
        count += 1000
    return count / spent


async def concurrent(get, workers: int, seconds: float) -> float:
    """Operations per second of so many tasks that each get one value after the other."""
    end = time.perf_counter() + seconds

    async def work() -> int:
        count = 0
        while time.perf_counter() < end:
            for _ in range(20):
                value = await get()
            count += 20
        assert value == VALUE
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(work() for _ in range(workers)))
    return sum(counts) / (time.perf_counter() - began)


async def ours(port: int, workers: int, seconds: float) -> float:
    async with mtcache.connect(f"redis://127.0.0.1:{port}") as cache:
        await cache.set("value", VALUE)
        return await concurrent(lambda: cache.get("value"), workers, seconds)


async def redis_py(port: int, workers: int, seconds: float) -> float:
    from redis.asyncio import BlockingConnectionPool, Redis

    pool = BlockingConnectionPool(host="127.0.0.1", port=port, max_connections=64, decode_responses=True)
    client = Redis(connection_pool=pool)
    await client.set("value", json.dumps(VALUE))

    async def get():
        return json.loads(await client.get("value"))

    try:
        return await concurrent(get, workers, seconds)
    finally:
        await client.aclose()
        await pool.disconnect()


async def glide(port: int, workers: int, seconds: float) -> float:
    from glide import GlideClient, GlideClientConfiguration, NodeAddress

    client = await GlideClient.create(GlideClientConfiguration([NodeAddress("127.0.0.1", port)]))
    await client.set("value", json.dumps(VALUE))

    async def get():
        return json.loads(await client.get("value"))

    try:
        return await concurrent(get, workers, seconds)
    finally:
        await client.close()


async def near(seconds: float) -> dict[str, float]:
    """What a near hit costs: through await and at once, a shared object and one of the caller's own."""
    found = {}
    async with mtcache.connect("embedded://") as cache:
        for share in (True, False):
            region = cache.region(f"near{share}", ttl=3600, near=True, share=share)
            await region.set("BTC", VALUE)
            for _ in range(100):
                await region.get("BTC")
                if region.peek("BTC") is not None:
                    break
            assert region.peek("BTC") == VALUE
            what = "a shared object" if share else "an object of its own"
            found[f"near, await, {what}"] = await concurrent(lambda: region.get("BTC"), 1, seconds)
            peek = region.peek
            found[f"near, peek, {what}"] = rate_of(lambda: peek("BTC"), seconds)
        await cache.set("value", VALUE)
        found["embedded, await"] = await concurrent(lambda: cache.get("value"), 1, seconds)
    stored = json.dumps(VALUE).encode()
    found["decode"] = rate_of(lambda: mtcache.decode(stored), seconds)
    found["json.loads"] = json_loads_per_second(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True, help="mtcache or redis-server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    if options.uvloop:
        import uvloop

        uvloop.install()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [options.server, "--port", str(port), "--dir", folder, "--appendonly", "no", "--save", ""]
        if not options.server.endswith("redis-server"):
            command.insert(1, "serve")
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            found: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for workers in (64, 1):
                    for client in (ours, redis_py, glide):
                        rate = asyncio.run(client(port, workers, options.seconds))
                        found.setdefault(f"{client.__name__}, {workers} at a time", []).append(rate)
                for name, rate in asyncio.run(near(options.seconds / 2)).items():
                    found.setdefault(name, []).append(rate)
        finally:
            server.terminate()
            server.wait()
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    print(f"Python {sys.version.split()[0]}, {'uvloop' if options.uvloop else 'asyncio'}, {options.server}")
    for name, rate in medians.items():
        print(f"{name:40} {rate:12,.0f}/s")
    for workers in (64, 1):
        for other in ("redis_py", "glide"):
            ratio = medians[f"ours, {workers} at a time"] / medians[f"{other}, {workers} at a time"]
            print(f"ours to {other}, {workers} at a time {ratio:.2f}")


if __name__ == "__main__":
    main()
