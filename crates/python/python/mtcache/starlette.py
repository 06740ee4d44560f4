"""For FastAPI and Starlette, as plain ASGI middleware: whole responses from the cache, and sessions of users.

.. code-block:: python

    app.add_middleware(ResponseCache, cache=cache, ttl=30)
    app.add_middleware(SessionBackend, cache=cache)

``cache`` is an open :class:`mtcache.Cache`, or what gives one for the application's state: ``lambda scope: scope["app"].state.cache``.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Union
from urllib.parse import parse_qsl, urlencode

from .arguments import digest
from .cache import Cache
from .errors import CacheError, LoaderError
from .region import Loaded, Region
from .trading import Session, Sessions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
GivesCache = Union[Cache, Callable[[Scope], Cache]]

#: Seconds that the application may take for a response: without the middleware nothing bounds it.
LOAD_TIMEOUT = 600.0
#: Requests that carry one of these are about somebody, and their responses are never shared.
PERSONAL = ("authorization", "cookie")


class _NotKept(Exception):
    """A response that is not to be shared; it goes to its own request all the same."""

    def __init__(self, response: _Response) -> None:
        self.response = response


class _Response:
    """A response on its way: gathered for as long as it may be kept, and from then on passed on as it comes."""

    def __init__(self, may_be_kept: Callable[[Message], bool], max_bytes: int) -> None:
        self._may_be_kept = may_be_kept
        self._room = max_bytes
        self._messages: list[Message] = []
        loop = asyncio.get_running_loop()
        self._is_not_kept: asyncio.Future[None] = loop.create_future()
        self._receiver: asyncio.Future[Send] = loop.create_future()
        self._made: asyncio.Task[None] | None = None

    async def gathered(self, make: Callable[[Send], Awaitable[None]]) -> list[Message]:
        """All of it. Raises :class:`_NotKept` as soon as it turns out not to be kept, while it is being made still."""
        self._made = asyncio.ensure_future(self._run(make))
        try:
            await asyncio.wait([self._made, self._is_not_kept], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._made.cancel()
            raise
        if self._is_not_kept.done():
            raise _NotKept(self)
        self._made.result()
        return self._messages

    async def _run(self, make: Callable[[Send], Awaitable[None]]) -> None:
        await make(self._take)

    async def _take(self, message: Message) -> None:
        if self._is_not_kept.done():
            await self._receiver.result()(message)
            return
        self._messages.append(message)
        self._room -= len(message.get("body", b""))
        if self._room >= 0 and (message["type"] != "http.response.start" or self._may_be_kept(message)):
            return
        self._is_not_kept.set_result(None)
        await self._send_gathered(await self._receiver)

    async def _send_gathered(self, send: Send) -> None:
        for message in self._messages:
            await send(message)
        self._messages.clear()

    async def pass_on(self, send: Send) -> None:
        """Sends what has been gathered, and the rest as it is made."""
        if self._is_not_kept.done() and self._made is not None:
            self._receiver.set_result(send)
            await self._made
        else:
            await self._send_gathered(send)

    def abandon(self) -> None:
        """Its request is over: what cannot be kept is not made any further."""
        self._receiver.cancel()


def _cache_of(cache: GivesCache, scope: Scope) -> Cache:
    return cache if isinstance(cache, Cache) else cache(scope)


class ResponseCache:
    """Answers GET requests from the cache. Requests for one response that miss together make it once.

    Kept are responses with status 200 that set no cookie, forbid nothing in ``Cache-Control``, and are no larger than ``max_bytes``, for ``ttl``
    or, if they say so by ``s-maxage``, ``max-age`` or ``Expires``, shorter; one that says that it is not fresh even now is not kept, nor is a stream of events;
    requests with ``Authorization`` or a cookie go past, unless ``vary_on`` names what tells them apart. Each response that may be kept
    says in ``X-Cache`` whether it was a hit. What may not be kept is passed on as the application makes it, from the moment that this is known: by its
    first message, or when its body grows beyond ``max_bytes``. So no request holds more than that in memory, and one message.

    :param ttl: Seconds that a response lives at the most.
    :param vary_on: Headers whose values are part of the key, in lower case.
    :param only: Prefixes of the paths that are kept; all, by default.
    :param max_bytes: Largest body that is kept.
    """

    def __init__(
        self,
        app: App,
        *,
        cache: GivesCache,
        ttl: float = 30,
        name: str = "http_response",
        vary_on: Iterable[str] = ("accept", "accept-encoding"),
        only: Iterable[str] = ("/",),
        max_bytes: int = 1024 * 1024,
    ) -> None:
        self.app = app
        self._cache = cache
        self._ttl = ttl
        self._name = name
        self._vary_on = tuple(header.lower() for header in vary_on)
        self._only = tuple(only)
        self._max_bytes = max_bytes
        self._regions: dict[int, Region[Any]] = {}

    def _region(self, scope: Scope) -> Region[Any]:
        cache = _cache_of(self._cache, scope)
        region = self._regions.get(id(cache))
        if region is None or self._regions.get(-id(cache)) is not cache:
            region = cache.region(self._name, ttl=self._ttl, none_ttl=None, undecodable="miss", load_timeout=LOAD_TIMEOUT)
            self._regions = {id(cache): region, -id(cache): cache}  # type: ignore[dict-item]
        return region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._may_be_kept(scope):
            await self.app(scope, receive, send)
            return

        ours: list[_Response] = []
        is_over = False

        async def load(_: Any) -> Loaded[dict[str, Any]]:
            response = _Response(self._may_be_shared, self._max_bytes)
            ours.append(response)
            if is_over:
                response.abandon()
            return self._kept(response, await response.gathered(lambda take: self._make(scope, receive, take)))

        try:
            read = await self._region(scope).get_or_reload(self._id(scope), load)
        except CacheError as error:
            cause = error.__cause__ if isinstance(error, LoaderError) else None
            if isinstance(cause, _NotKept) and cause.response in ours:
                await cause.response.pass_on(send)
            elif isinstance(cause, _NotKept) or not ours:
                # What another request was answered is that request's alone.
                await self.app(scope, receive, send)
            else:
                raise cause or error
            return
        finally:
            is_over = True
            for response in ours:
                response.abandon()
        stored = read.value
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in stored["headers"]]
        headers.append((b"x-cache", b"miss" if read.source == "loader" else b"hit"))
        await send({"type": "http.response.start", "status": stored["status"], "headers": headers})
        await send({"type": "http.response.body", "body": base64.b64decode(stored["body"])})

    def _may_be_kept(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(self._only):
            return False
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if any(header in headers and header not in self._vary_on for header in PERSONAL):
            return False
        asked = headers.get("cache-control", "")
        return "no-store" not in asked and "no-cache" not in asked and "range" not in headers

    def _id(self, scope: Scope) -> str:
        asked = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        # By name alone: the order of the values of one name may mean something.
        query = urlencode(sorted(asked, key=lambda pair: pair[0]))
        headers = [
            [name.decode("latin-1").lower(), value.decode("latin-1")]
            for name, value in scope["headers"]
            if name.decode("latin-1").lower() in self._vary_on
        ]
        host = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
        return digest(scope.get("root_path", ""), scope["path"], query, sorted(headers), host, scope.get("scheme"))

    async def _make(self, scope: Scope, receive: Receive, take: Send) -> None:
        # A copy: what the application writes into it belongs to this request. The whole body has to pass here, so there are no other ways for it.
        own = dict(scope)
        offered = scope.get("extensions") or {}
        own["extensions"] = {name: value for name, value in offered.items() if not name.startswith("http.response.")}
        await self.app(own, receive, take)

    def _kept(self, response: _Response, messages: list[Message]) -> Loaded[dict[str, Any]]:
        start = next((message for message in messages if message["type"] == "http.response.start"), None)
        bodies = [message for message in messages if message["type"] == "http.response.body"]
        body = b"".join(bytes(part.get("body", b"")) for part in bodies)
        is_whole = bool(bodies) and not bodies[-1].get("more_body", False)
        if start is None or not is_whole:
            raise _NotKept(response)
        kept = {"status": 200, "headers": _headers(start), "body": base64.b64encode(body).decode()}
        return Loaded(kept, ttl=_fresh_for(start))

    def _may_be_shared(self, start: Message) -> bool:
        if start["status"] != 200 or _fresh_for(start) == 0:
            return False
        for name, value in _headers(start):
            words = value.lower()
            # It never ends, and each event is for now.
            if name.lower() == "content-type" and words.startswith("text/event-stream"):
                return False
            if name.lower() == "set-cookie" or (name.lower() == "vary" and self._varies_otherwise(words)):
                return False
            if name.lower() == "cache-control" and any(word in words for word in ("no-store", "private", "no-cache")):
                return False
        return True

    def _varies_otherwise(self, vary: str) -> bool:
        return any(name.strip() not in self._vary_on for name in vary.split(",") if name.strip())


#: The longest life in seconds that a response is taken to ask for.
_LONGEST = 1e9


def _fresh_for(start: Message) -> float | None:
    """For how many seconds a response says that it is fresh, for whoever shares it; None if it does not say. What cannot be read is not fresh."""
    headers = [(name.lower(), value) for name, value in _headers(start)]
    said = [word.strip() for name, value in headers if name == "cache-control" for word in value.lower().split(",")]
    directives = dict(word.partition("=")[::2] for word in reversed(said))
    for name in ("s-maxage", "max-age"):
        if name in directives:
            seconds = directives[name].strip('"')
            return min(float(seconds), _LONGEST) if seconds.isascii() and seconds.isdigit() else 0.0
    expires = next((value for name, value in headers if name == "expires"), None)
    if expires is None:
        return None
    try:
        until = parsedate_to_datetime(expires)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
    return min(max((until - datetime.now(timezone.utc)).total_seconds(), 0.0), _LONGEST)


def _headers(start: Message) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", [])]


class UserSession:
    """The session of a request, as ``scope["mtcache_session"]``. A Starlette or FastAPI handler finds it with :func:`session_of`."""

    def __init__(self, sessions: Sessions, token: str | None, session: Session | None) -> None:
        self._sessions = sessions
        self._token = token
        self.session = session
        self._cookie: str | None = None

    @property
    def user_id(self) -> str | None:
        """Whose it is; None without a session."""
        return self.session.user_id if self.session else None

    @property
    def data(self) -> dict[str, Any]:
        """What is kept in it."""
        return self.session.data if self.session else {}

    async def log_in(self, user_id: str, data: dict[str, Any] | None = None) -> Session:
        """Opens a session; its token goes into the response's cookie, and the one of before is ended."""
        if self._token is not None:
            await self._sessions.revoke(self._token)
        self._token, self.session = await self._sessions.create(user_id, data)
        self._cookie = self._token
        return self.session

    async def update(self, data: dict[str, Any]) -> bool:
        """Replaces what is kept in it; False if there is none any more."""
        return self._token is not None and await self._sessions.update(self._token, data)

    async def log_out(self, everywhere: bool = False) -> None:
        """Ends it, or all of its user's."""
        if everywhere and self.session is not None:
            await self._sessions.revoke_all(self.session.user_id)
        elif self._token is not None:
            await self._sessions.revoke(self._token)
        self._token, self.session, self._cookie = None, None, ""


def session_of(request: Any) -> UserSession:
    """The session of a request of Starlette or FastAPI: ``Depends(session_of)`` works too, with ``request: Request``."""
    found: UserSession = request.scope["mtcache_session"]
    return found


class SessionBackend:
    """Finds each request's session by its cookie. The token is in the cookie alone; the cache has only its hash.

    With the cache out of reach a request has no session: that fails closed.

    :param cookie: The cookie's name.
    :param secure: Whether browsers send it over HTTPS alone.
    :param same_site: ``lax``, ``strict`` or ``none``.
    :param absolute_life: Seconds that a session lives at the most; 30 days by default.
    """

    def __init__(
        self,
        app: App,
        *,
        cache: GivesCache,
        cookie: str = "session",
        secure: bool = True,
        same_site: str = "lax",
        absolute_life: float | None = None,
    ) -> None:
        self.app = app
        self._cache = cache
        self._cookie = cookie
        self._attributes = f"; Path=/; HttpOnly; SameSite={same_site}{'; Secure' if secure else ''}"
        self._absolute_life = absolute_life

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        sessions = _cache_of(self._cache, scope).sessions(absolute_life=self._absolute_life)
        token = self._token(scope)
        session = None
        if token is not None:
            try:
                session = await sessions.get(token)
            except CacheError:
                token = None
        user = UserSession(sessions, token if session else None, session)
        scope["mtcache_session"] = user

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and user._cookie is not None:
                age = "; Max-Age=0" if user._cookie == "" else ""
                value = f"{self._cookie}={user._cookie}{self._attributes}{age}"
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", value.encode("latin-1"))]}
            await send(message)

        await self.app(scope, receive, with_cookie)

    def _token(self, scope: Scope) -> str | None:
        # Each by itself, as browsers send them: one that is written oddly is no reason to lose the others.
        for name, value in scope["headers"]:
            if name.lower() == b"cookie":
                for cookie in value.decode("latin-1").split(";"):
                    key, equals, token = cookie.partition("=")
                    if equals and key.strip() == self._cookie:
                        return token.strip().strip('"') or None
        return None
