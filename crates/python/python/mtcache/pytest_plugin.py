"""A fixture for the tests of services: an empty cache in this process for each test.

.. code-block:: python

    async def test_prices(mtcache_embedded):
        await mtcache_embedded.set("price:BTC", 45000.5)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cache import Cache, connect


@pytest.fixture
def mtcache_embedded() -> Iterator[Cache]:
    """An empty cache on an engine of its own, to be used from any loop."""
    cache = connect("embedded://").wait()
    yield cache
    cache.close()
