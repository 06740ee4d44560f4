from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from typing import List as _List

from ._mtcache import Operation

@dataclass(frozen=True)
class Signal:
    signal: Any
    id: str | None
    age: float

class Signals:
    """The buffer of recent signals, shared by all services. Made by :meth:`Cache.signals`."""

    def __init__(self, core: Any) -> None: ...
    def push(self, signal: Mapping[str, Any], *, max_signals: int = 1000) -> Operation[tuple[str, int]]:
        """Puts a signal in; gives its identity and how many there are now."""
    async def recent(
        self,
        count: int = 100,
        *,
        symbol: str | None = None,
        signal_type: str | None = None,
        min_strength: float | None = None,
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
    ) -> list[Signal]:
        """The newest signals that match, newest first."""
    def count(self) -> Operation[int]: ...
    def clear(self) -> Operation[None]: ...

@dataclass(frozen=True)
class Session:
    id: str
    user_id: str
    created_at: float
    ends_at: float
    data: dict[str, Any]

class Sessions:
    """Sessions of users, found by a token that is never stored. Made by :meth:`Cache.sessions`."""

    def __init__(self, core: Any) -> None: ...
    async def create(self, user_id: str, data: dict[str, Any] | None = None) -> tuple[str, Session]: ...
    async def get(self, token: str) -> Session | None: ...
    async def list(self, user_id: str) -> _List[Session]: ...
    def update(self, token: str, data: dict[str, Any]) -> Operation[bool]: ...
    def revoke(self, token: str) -> Operation[bool]: ...
    def revoke_all(self, user_id: str) -> Operation[int]: ...
