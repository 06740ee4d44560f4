"""What type checkers see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SAMPLE = '''
import asyncio
from dataclasses import dataclass
from datetime import timedelta

import mtcache
from mtcache.compat.redis_client import RedisCacheManager, buffer_signal, get_recent_signals


@dataclass
class Price:
    symbol: str
    price: float


async def load() -> Price:
    return Price("BTC", 1.0)


async def main() -> None:
    async with mtcache.connect("embedded://", prefix="a:") as cache:
        stored: bool = await cache.set("key", {"a": 1}, ttl=timedelta(seconds=5), nx=True)
        count: int = await cache.delete("key")
        prices = cache.region(Price, ttl=30)
        price: Price | None = await prices.get("BTC")
        loaded: Price = await prices.get_or_load("BTC", load)
        read = await prices.read_or_load("BTC", load, max_age=5)
        age: float | None = read.age
        framed = cache.region("framed", ttl=30, framed=mtcache.Framing(compression="lz4"), codec="messagepack", lease=5)
        await framed.tagged("a").set(("x", 1), b"bytes")
        many: dict[str, Price] = await prices.get_or_load_many(["BTC"], lambda ids: {id: Price(id, 1.0) for id in ids})
        warm: int = (await prices.warm_up(["BTC"], lambda id: Price(id, 1.0))).loaded
        level: str = cache.health().level
        print(many, warm, level)
        recent: list[mtcache.Signal] = await cache.signals().recent(5, symbol="BTC")
        tasks = [asyncio.create_task(prices.get(name)) for name in ("a", "b")]
        print(stored, count, price, loaded, age, recent, await asyncio.gather(*tasks))
    with mtcache.connect_sync("embedded://") as sync:
        sync.set("key", 1)
        left: float | None = sync.ttl("key")
        print(left, sync.region(Price, ttl=5).get_or_load("BTC", lambda: Price("BTC", 1.0)))
    manager = RedisCacheManager(redis_url="embedded://")
    print(await manager.connect(), await buffer_signal(manager, {}), await get_recent_signals(manager))


asyncio.run(main())
'''


def test_a_strict_type_checker_accepts_a_program_and_finds_its_fault(tmp_path):
    for code, status in [(SAMPLE, 0), (SAMPLE.replace("count: int =", "count: str ="), 1)]:
        # Each a file of its own: the checker takes one of equal length and of the same second for unchanged.
        program = tmp_path / f"program_{status}.py"
        program.write_text(code)
        checked = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
            capture_output=True, text=True, timeout=300,
        )
        assert checked.returncode == status, checked.stdout + checked.stderr


def test_the_stubs_say_what_the_package_has(tmp_path):
    checked = subprocess.run(
        [
            sys.executable, "-m", "mypy.stubtest", "mtcache", "--concise",
            "--allowlist", str(Path(__file__).parent / "stubtest-allowlist.txt"),
        ],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
