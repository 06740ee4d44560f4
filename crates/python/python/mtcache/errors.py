"""What can go wrong, one class for each kind.

All of them are a :class:`CacheError`. None of them ever reads as a miss.
"""

from __future__ import annotations

__all__ = [
    "BackendMemoryError",
    "BackendTimeoutError",
    "BadKeyError",
    "BadTtlError",
    "CacheError",
    "ClosedError",
    "ConfigError",
    "ConnectionLostError",
    "DeadlineError",
    "DeniedError",
    "ForkedError",
    "InvalidSignalError",
    "InvalidTimestampError",
    "LoadTimeoutError",
    "LoaderError",
    "LoaderLostError",
    "NotANumberError",
    "NotNowError",
    "ProtocolError",
    "RefusedError",
    "ShedError",
    "SignalTooOldError",
    "UnavailableError",
    "UndecodableError",
    "UnencodableError",
    "WrongTypeError",
]


class CacheError(Exception):
    """A call of the cache failed."""

    #: Whether a write that failed can have taken effect all the same.
    outcome_unknown: bool = False


class ConfigError(CacheError, ValueError):
    """The URL or an option is not usable."""


class BadTtlError(CacheError, ValueError):
    """A time to live of nothing, below a millisecond, or beyond a hundred years."""


class BadKeyError(CacheError, ValueError):
    """A key that cannot be: empty, too long, or one of the cache's own."""


class UnencodableError(CacheError, ValueError):
    """The value has no stored form, such as NaN or an infinity."""


class UndecodableError(CacheError, ValueError):
    """What is stored is not what was asked for."""


class WrongTypeError(CacheError):
    """The key holds another type, a hash where a value is asked for."""


class NotANumberError(CacheError, ValueError):
    """The key holds no number, or the result would not fit."""


class UnavailableError(CacheError, ConnectionError):
    """The backend is out of reach; nothing was sent. It is reconnected by itself."""


class ConnectionLostError(CacheError, ConnectionError):
    """The connection broke under way: the outcome is unknown."""


class BackendTimeoutError(CacheError, TimeoutError):
    """The backend did not answer in time: the outcome is unknown."""


class DeniedError(CacheError):
    """The backend refuses our credentials, or our user may not do this."""


class BackendMemoryError(CacheError):
    """The backend is out of memory and may not evict."""


class NotNowError(CacheError):
    """The backend does not take this now: busy, loading, read-only, or failing to persist."""


class ShedError(CacheError):
    """Too much is under way already; refused at once to keep the rest fast."""


class RefusedError(CacheError):
    """Any other refusal by the backend."""


class ProtocolError(CacheError):
    """The backend's answer makes no sense."""


class LoaderError(CacheError):
    """The loader raised; its exception is the ``__cause__``."""


class LoaderLostError(CacheError):
    """The loader was cancelled or its loop was closed, and so was the one that took over."""


class LoadTimeoutError(CacheError, TimeoutError):
    """The loader took longer than the region allows."""


class DeadlineError(CacheError, TimeoutError):
    """The read took longer than its caller allows. A load that has begun goes on."""


class ClosedError(CacheError):
    """The cache has been closed."""


class ForkedError(CacheError):
    """The cache was opened before a fork; the child has to open one of its own."""


class InvalidTimestampError(CacheError, ValueError):
    """A time that is none, or lies too far ahead."""


class InvalidSignalError(CacheError, ValueError):
    """The signal is no dict, or one of its reserved fields is wrong."""


class SignalTooOldError(CacheError, ValueError):
    """The signal is older than the buffer keeps, or than all it has room for."""
