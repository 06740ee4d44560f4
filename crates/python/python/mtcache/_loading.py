"""Loaders: how one is called, in a loop or in a thread, and how the load hears of its end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

# Tasks are held by their loop only weakly.
_under_way: set[asyncio.Task[None]] = set()


def is_async(function: Any) -> bool:
    """Whether calling it gives something to await, as far as can be told without calling it."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))


async def call(loader: Callable[..., Any], *args: Any) -> Any:
    """The loader's value. One that is no coroutine function runs in a thread, so that it never holds up the loop; if what it
    returns can be awaited, it is, here."""
    if is_async(loader):
        return await loader(*args)
    context = contextvars.copy_context()
    value = await asyncio.get_running_loop().run_in_executor(None, functools.partial(context.run, loader, *args))
    return await value if inspect.isawaitable(value) else value


async def _load(
    loader: Callable[..., Any], form: Callable[[Any], Any] | None, done: Any, args: tuple[Any, ...]
) -> None:
    try:
        value = await call(loader, *args)
        if form is not None:
            value = form(value)
    except asyncio.CancelledError:
        done.lost()
        raise
    except Exception as error:
        done.failed(error)
    else:
        done.value(value)


def starter(loader: Callable[..., Any], form: Callable[[Any], Any] | None = None) -> Callable[..., asyncio.Task[None]]:
    """What begins the loader in the loop that runs then, in the context of now."""
    context = contextvars.copy_context()

    def start(done: Any, *args: Any) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        task = context.run(loop.create_task, _load(loader, form, done, args))
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
        return task

    return start


def in_thread(loader: Callable[..., Any], form: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """The loader for a load without a loop."""
    context = contextvars.copy_context()

    async def awaited(value: Awaitable[Any]) -> Any:
        return await value

    def load(*args: Any) -> Any:
        value = loader(*args)
        if inspect.isawaitable(value):
            value = asyncio.run(awaited(value))
        return value if form is None else form(value)

    # A context can be entered once at a time, and a batch may be loaded by several calls.
    return lambda *args: context.copy().run(load, *args)
