"""Servers and caches for the tests: each backend is started here, on a port of its own, and stopped by its process."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mtcache
from mtcache.compat.redis_client import RedisCacheManager

ROOT = Path(__file__).resolve().parents[3]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run what takes minutes too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; --long"))


def free_port() -> int:
    """A port on which nobody listens, this process's until it ends: out of the range of outgoing connections, and claimed as the harness of
    the Rust tests claims its ports (crates/conformance/src/ports.rs), so that it is free when its server is started again.
    """
    while True:
        port = random.randrange(12_000, 22_000)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0mtcache-test-port-{port}")
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            claim.detach()
            return port


class Server:
    """A server on a port of its own that can be killed and started again."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.port = free_port()
        self._command = [word.format(port=self.port, dir=folder) for word in command]
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(7) == b"+PONG\r\n":
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"{self._command[0]} did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)
        status = Path(f"/proc/{self._process.pid}/task")
        # It is the kernel's to stop each thread, and that takes its time.
        while not all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in status.iterdir()):
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


def _commands() -> dict[str, list[str]]:
    ours = os.environ.get("MTCACHE_BIN") or shutil.which("mtcache") or str(ROOT / "target/debug/mtcache")
    redis = shutil.which("redis-server") or "redis-server"
    options = ["--port", "{port}", "--bind", "127.0.0.1", "--dir", "{dir}", "--appendonly", "no", "--save", ""]
    return {"mtcache": [ours, "serve", *options], "redis": [redis, *options]}


@pytest.fixture(params=["mtcache", "redis"])
def own_server(request, tmp_path):
    """A server for one test alone, to be killed, frozen and started again."""
    server = Server(_commands()[request.param], tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["embedded", "mtcache", "redis"])
def url(request):
    """The URL of an empty database on each backend."""
    if request.param == "embedded":
        return "embedded://"
    server = request.getfixturevalue(f"_{request.param}")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(5) == b"+OK\r\n"
    return server.url


def _session_server(name):
    @pytest.fixture(scope="session", name=f"_{name}")
    def start(tmp_path_factory):
        server = Server(_commands()[name], tmp_path_factory.mktemp(name))
        server.start()
        yield server
        server.kill()

    return start


_mtcache = _session_server("mtcache")
_redis = _session_server("redis")


@pytest.fixture
async def cache(url):
    """A native cache on each backend."""
    async with mtcache.connect(url) as cache:
        yield cache


@pytest.fixture
async def manager(url):
    """The drop-in on each backend."""
    manager = RedisCacheManager(redis_url=url)
    assert await manager.connect()
    yield manager
    await manager.disconnect()


def run_python(code: str, *arguments: str, timeout: float = 60, **environment: str) -> str:
    """What a program prints that must end well, and in time."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return done.stdout


async def until(claim, timeout: float = 10.0) -> None:
    """Waits until a claim holds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not await claim():
        assert asyncio.get_running_loop().time() < deadline, "it never came to hold"
        await asyncio.sleep(0.02)
