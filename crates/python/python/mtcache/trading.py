"""Signals and sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Signal:
    """A signal read from the buffer."""

    #: The signal as it was pushed.
    signal: Any
    #: Its identity in the buffer; signals of old writers have none.
    id: str | None
    #: How old it was when it was read, in seconds.
    age: float


class Signals:
    """The buffer of recent signals, shared by all services. Made by :meth:`Cache.signals`."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def push(self, signal, *, max_signals=1000):
        return self._core.push(signal, max_signals)

    async def recent(self, count=100, **filters):
        return [Signal(*found) for found in await self._core._find(count, **filters)]

    def count(self):
        return self._core.count()

    def clear(self):
        return self._core.clear()


@dataclass(frozen=True)
class Session:
    """A session of a user."""

    #: Names the session without opening it.
    id: str
    user_id: str
    #: Epoch seconds.
    created_at: float
    #: When it ends, however much it is used, in epoch seconds.
    ends_at: float
    #: What the service keeps in it.
    data: dict[str, Any]


class Sessions:
    """Sessions of users, found by a token that is never stored. Made by :meth:`Cache.sessions`."""

    def __init__(self, core: Any) -> None:
        self._core = core

    async def create(self, user_id, data=None):
        token, session = await self._core._create(user_id, data)
        return token, Session(*session)

    async def get(self, token):
        found = await self._core._get(token)
        return None if found is None else Session(*found)

    async def list(self, user_id):
        return [Session(*found) for found in await self._core._list(user_id)]

    def update(self, token, data):
        return self._core.update(token, data)

    def revoke(self, token):
        return self._core.revoke(token)

    def revoke_all(self, user_id):
        return self._core.revoke_all(user_id)
