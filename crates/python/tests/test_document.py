"""The Python blocks of the document that the product comes from, run as they stand, in one namespace."""

from __future__ import annotations

import ast
import re
import sys
import types
from datetime import datetime
from pathlib import Path

import pytest

from conftest import ROOT
from mtcache.compat import redis_client

DOCUMENT = ROOT.parent / "shared" / "reference" / "redis-cache-setup.md"


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not beside the project")
async def test_the_blocks_of_the_document_run(url, monkeypatch):
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    monkeypatch.syspath_prepend(str(Path(redis_client.__file__).parent))
    code = "\n".join(_flat(block) for block in blocks).replace("redis://localhost:6379", url)
    namespace = {"datetime": datetime, "settings": types.SimpleNamespace(REDIS_URL=url)}
    compiled = compile(code, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    coroutine = eval(compiled, namespace)
    await coroutine
    assert namespace["value"] == {"data": "value"}
    assert namespace["cached"] == namespace["market_data"]
    assert namespace["recent"] == [namespace["signal"]]

    service = namespace["MarketDataService"]()
    service.database = _Database()
    await service.startup()
    assert await service.get_onchain_metrics("BTC") == await service.get_onchain_metrics("BTC") == {"symbol": "BTC"}
    assert service.database.calls == 1
    risk = namespace["RiskPostgresDatabase"]()
    risk._fetch_backtest_from_db = service.database.get_onchain_metrics
    assert await risk.get_backtest_results("s1") == await risk.get_backtest_results("s1") == {"symbol": "s1"}
    assert service.database.calls == 2
    for one in (service.cache, risk.cache):
        await one.disconnect()
    for name in [name for name in sys.modules if name == "shared" or name.startswith("shared.")]:
        del sys.modules[name]


def _flat(block: str) -> str:
    """A block as it stands, without the indentation of the list that it is in."""
    lines = block.splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)


class _Database:
    calls = 0

    async def get_onchain_metrics(self, symbol):
        self.calls += 1
        return {"symbol": symbol}
