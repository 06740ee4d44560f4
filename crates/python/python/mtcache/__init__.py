"""The cache of a trading platform, for asyncio services.

>>> import asyncio, mtcache
>>> async def main():
...     async with mtcache.connect("embedded://") as cache:
...         await cache.set("greeting", {"hello": "world"}, ttl=60)
...         return await cache.get("greeting")
>>> asyncio.run(main())
{'hello': 'world'}
"""

from __future__ import annotations

import os as _os

from . import errors
from ._mtcache import Operation, __version__, _after_fork_in_child, decode, encode, hot_keys
from .cache import MISSING, Cache, Health, LastError, connect
from .decorators import cached
from .errors import *  # noqa: F403
from .region import Framing, Loaded, Previous, Read, Region, WarmUpReport
from .sync import SyncCache, SyncRegion, SyncSessions, SyncSignals, connect_sync
from .trading import Session, Sessions, Signal, Signals

if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = [
    "MISSING",
    "Cache",
    "Framing",
    "Health",
    "LastError",
    "Loaded",
    "Operation",
    "Previous",
    "Read",
    "Region",
    "Session",
    "Sessions",
    "Signal",
    "Signals",
    "SyncCache",
    "SyncRegion",
    "SyncSessions",
    "SyncSignals",
    "WarmUpReport",
    "__version__",
    "cached",
    "connect",
    "connect_sync",
    "decode",
    "encode",
    "errors",
    "hot_keys",
    *errors.__all__,
]
