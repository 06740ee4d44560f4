"""The middleware for FastAPI and Starlette."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response

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
