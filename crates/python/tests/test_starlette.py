"""The middleware for FastAPI and Starlette."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response

from conftest import until
from mtcache import CacheError
from mtcache.starlette import ResponseCache, SessionBackend, session_of


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="https://test")


@pytest.fixture
async def app(cache):
    app = FastAPI()
    app.calls = []

    @app.get("/price/{symbol}")
    async def price(symbol: str, window: int = 1):
        app.calls.append(symbol)
        await asyncio.sleep(0.02)
        return {"symbol": symbol, "window": window, "calls": len(app.calls)}

    @app.get("/private")
    async def private(response: Response):
        app.calls.append("private")
        response.headers["cache-control"] = "private"
        return len(app.calls)

    @app.get("/missing")
    async def missing():
        app.calls.append("missing")
        return Response("nothing", status_code=404)

    app.add_middleware(ResponseCache, cache=cache, ttl=30)
    return app


async def test_a_response_is_made_once_for_all_who_ask(app):
    async with client_of(app) as client:
        responses = await asyncio.gather(*(client.get("/price/BTC") for _ in range(20)))
        assert app.calls == ["BTC"] and all(r.json() == responses[0].json() for r in responses)
        again = await client.get("/price/BTC")
        assert again.headers["x-cache"] == "hit" and again.headers["content-type"] == "application/json"
        await client.get("/price/BTC?window=2")
        await client.get("/price/ETH")
        assert app.calls == ["BTC", "BTC", "ETH"]


async def test_what_is_somebodys_own_is_never_shared(app):
    async with client_of(app) as client:
        for _ in range(2):
            await client.get("/private")
            assert (await client.get("/missing")).status_code == 404
            assert "x-cache" not in (await client.get("/price/BTC", headers={"authorization": "a"})).headers
        assert app.calls.count("private") == 2 and app.calls.count("missing") == 2 and app.calls.count("BTC") == 2


async def test_what_is_somebodys_own_is_not_shared_with_those_who_ask_at_once(cache):
    answers = []

    async def app(scope, receive, send):
        answers.append(len(answers))
        body = str(answers[-1]).encode()
        await asyncio.sleep(0.05)
        headers = [(b"set-cookie", b"session=" + body), (b"cache-control", b"private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with client_of(ResponseCache(app, cache=cache)) as client:
        responses = await asyncio.gather(*(httpx_get(client, "/first") for _ in range(5)))
    assert sorted(response.text for response in responses) == ["0", "1", "2", "3", "4"]
    assert len({response.headers["set-cookie"] for response in responses}) == 5


async def httpx_get(client, path):
    return await client.get(path, headers={"cookie": ""})


async def test_a_body_that_is_not_whole_is_not_kept(cache):
    calls = []

    async def app(scope, receive, send):
        calls.append(scope.get("extensions"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if len(calls) > 2:
            await send({"type": "http.response.body", "body": b"whole"})
        elif len(calls) > 1:
            await send({"type": "http.response.body", "body": b"wh", "more_body": True})

    cached = ResponseCache(app, cache=cache)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "extensions": {"http.response.pathsend": {}, "tls": {}}}
    for bodies in ([], [b"wh"], [b"whole"], [b"whole"]):
        sent = []

        async def send(message):
            sent.append(message)

        await cached(scope, None, send)
        assert [message["body"] for message in sent if message["type"] == "http.response.body"] == bodies
    assert calls == [{"tls": {}}] * 3


SAYS = [
    ({"cache-control": "max-age=60"}, 60),
    ({"cache-control": "public, s-maxage=50, max-age=0"}, 50),
    ({"cache-control": 'Max-Age="40"', "expires": "0"}, 40),
    ({"cache-control": "max-age=" + "9" * 5000}, 3600),
    ({"cache-control": "public"}, 3600),
    ({"expires": "Thu, 01 Jan 2099 00:00:00 GMT"}, 3600),
    ({"cache-control": "max-age=0"}, None),
    ({"cache-control": "max-age=soon"}, None),
    ({"cache-control": "s-maxage=0, max-age=60"}, None),
    ({"expires": "0"}, None),
    ({"expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
]


@pytest.mark.parametrize("headers, life", SAYS)
async def test_a_response_is_kept_no_longer_than_it_says(cache, headers, life):
    calls = []

    async def app(scope, receive, send):
        calls.append(scope["path"])
        said = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": said})
        await send({"type": "http.response.body", "body": b"whole"})

    async with client_of(ResponseCache(app, cache=cache, ttl=3600)) as client:
        for _ in range(2):
            assert (await client.get("/")).text == "whole"
    assert len(calls) == (2 if life is None else 1)
    keys = await cache.command("KEYS", "http_response:*")
    left = [await cache.command("PTTL", key) for key in keys]
    assert len(left) == (0 if life is None else 1) and all(life - 30 < milliseconds / 1000 <= life for milliseconds in left)


def scope_of(path: str) -> dict:
    return {"type": "http", "method": "GET", "path": path, "headers": []}


class Streaming:
    """An application that makes chunks as fast as they are taken; its clients take them when they are told to."""

    def __init__(self, chunks: int = 64, headers: tuple = ()) -> None:
        self.chunks, self.headers = chunks, list(headers)
        self.made, self.ended = 0, []

    async def __call__(self, scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            for n in range(self.chunks):
                self.made += 1
                await send({"type": "http.response.body", "body": bytes([n]) * 1000, "more_body": n + 1 < self.chunks})
        finally:
            self.ended.append(self.made)


async def test_a_body_beyond_the_limit_is_passed_on_as_it_is_made(cache):
    app, taken, go_on = Streaming(), [], asyncio.Semaphore(0)

    async def send(message):
        await go_on.acquire()
        taken.append(message)

    answer = asyncio.create_task(ResponseCache(app, cache=cache, max_bytes=10_000)(scope_of("/"), None, send))
    for step in range(app.chunks + 1):
        await asyncio.sleep(0.002)
        # What has been gathered up to the limit, the one message that went beyond it, and one on its way.
        assert app.made <= max(11, step) + 1
        go_on.release()
    await asyncio.wait_for(answer, 20)
    assert [message["type"] for message in taken] == ["http.response.start"] + ["http.response.body"] * app.chunks
    assert b"".join(message.get("body", b"") for message in taken) == b"".join(bytes([n]) * 1000 for n in range(64))
    assert await cache.region("http_response", ttl=30).invalidate_all() == 0, "nothing is kept of it"


@pytest.mark.parametrize(
    "header", [(b"cache-control", b"no-store"), (b"content-type", b"text/event-stream; charset=utf-8")], ids=["private", "events"]
)
async def test_a_response_that_says_it_is_not_to_be_kept_is_passed_on_from_its_start(cache, header):
    app, taken = Streaming(headers=[header]), []

    async def send(message):
        taken.append(message)
        await asyncio.Event().wait()

    answer = asyncio.create_task(ResponseCache(app, cache=cache)(scope_of("/"), None, send))

    async def has_begun():
        return bool(taken)

    await until(has_begun)
    assert app.made == 0, "nothing of the body is made before its start has been taken"
    answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer
    assert app.ended == [0], "and it ends with its request"


async def test_each_who_asks_at_once_gets_a_large_body_of_their_own(cache):
    app = Streaming()
    cached = ResponseCache(app, cache=cache, max_bytes=10_000)

    async def ask():
        taken = []

        async def send(message):
            await asyncio.sleep(0)
            taken.append(message.get("body", b""))

        await cached(scope_of("/"), None, send)
        return b"".join(taken)

    expected = b"".join(bytes([n]) * 1000 for n in range(64))
    assert await asyncio.gather(*(ask() for _ in range(5))) == [expected] * 5


async def test_a_large_response_ends_when_its_client_has_left(cache):
    app = Streaming()
    cached, began = ResponseCache(app, cache=cache, max_bytes=10_000), asyncio.Event()

    async def never(message):
        began.set()
        await asyncio.Event().wait()

    leaving = asyncio.create_task(cached(scope_of("/"), None, never))
    await asyncio.wait_for(began.wait(), 20)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert app.ended == [11]


async def test_a_response_that_is_not_kept_ends_if_its_client_leaves_before_that_is_known(cache):
    app = Streaming()
    cached = ResponseCache(app, cache=cache, max_bytes=10_000)

    async def send(message):
        raise AssertionError("there is nobody to send to")

    leaving = asyncio.create_task(cached(scope_of("/"), None, send))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    async def has_ended():
        return bool(app.ended)

    await until(has_ended)
    assert app.ended == [11]


async def test_an_error_in_the_midst_of_a_large_body_is_the_servers_to_hear(cache):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
        raise LookupError("half way")

    taken = []

    async def send(message):
        taken.append(message["type"])

    with pytest.raises(LookupError, match="half way"):
        await ResponseCache(app, cache=cache, max_bytes=10_000)(scope_of("/"), None, send)
    assert taken == ["http.response.start", "http.response.body"]


async def test_a_slow_application_has_the_time_that_it_has_without_the_cache(cache):
    cached = ResponseCache(Streaming(), cache=cache)
    changed, needs_restart = cached._region(scope_of("/")).reload(load_timeout=600)
    assert (changed, needs_restart) == ([], []), "it is that long already"


async def test_the_order_of_the_values_of_one_name_is_part_of_the_key(app):
    async with client_of(app) as client:
        for query in ("window=1&window=2", "window=2&window=1", "a=1&window=2", "window=2&a=1"):
            await client.get(f"/price/BTC?{query}")
    assert len(app.calls) == 3


async def test_an_error_of_the_application_is_not_a_reason_to_run_it_again(cache):
    calls = []

    async def app(scope, receive, send):
        calls.append(1)
        raise CacheError("the application's own")

    async with client_of(ResponseCache(app, cache=cache)) as client:
        with pytest.raises(CacheError, match="own"):
            await client.get("/")
    assert len(calls) == 1


async def test_with_the_cache_gone_the_application_answers(app, cache):
    cache.close()
    async with client_of(app) as client:
        assert (await client.get("/price/BTC")).status_code == 200


async def test_a_session_is_opened_used_and_ended(cache):
    app = FastAPI()
    app.add_middleware(SessionBackend, cache=cache)

    async def current(request: Request):
        return session_of(request)

    @app.post("/in/{user}")
    async def enter(user: str, session=Depends(current)):
        return (await session.log_in(user, {"n": 1})).user_id

    @app.get("/me")
    async def me(session=Depends(current)):
        return {"user": session.user_id, "data": session.data}

    @app.post("/out")
    async def leave(session=Depends(current)):
        await session.log_out()

    async with client_of(app) as client:
        assert (await client.get("/me")).json() == {"user": None, "data": {}}
        opened = await client.post("/in/ada")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie and "Secure" in cookie and "SameSite=lax" in cookie
        assert (await client.get("/me")).json() == {"user": "ada", "data": {"n": 1}}
        token = client.cookies["session"]
        assert len(token) == 64 and await cache.get(f"session:{token}") is None
        await client.post("/out")
        client.cookies.set("session", token)
        assert (await client.get("/me")).json()["user"] is None


@pytest.mark.parametrize("others", ['prefs={"a":1}; ', "name=John Doe; ", "odd; x=; "])
async def test_odd_cookies_beside_it_do_not_end_a_session(cache, others):
    sessions = cache.sessions()
    token, _ = await sessions.create("ada")
    found = []

    async def app(scope, receive, send):
        found.append(scope["mtcache_session"].user_id)

    headers = [(b"cookie", f"{others}session={token}".encode())]
    await SessionBackend(app, cache=cache)({"type": "http", "headers": headers}, None, None)
    assert found == ["ada"]
