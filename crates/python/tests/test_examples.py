"""The Python blocks of the project's own documents, each run as a program."""

from __future__ import annotations

import re

import pytest

from conftest import ROOT, run_python

#: What the blocks leave to the reader.
PRELUDE = """
async def ask_the_provider():
    return {"symbol": "BTC", "nvt_ratio": 45.2}

async def ask_for_several(symbols):
    return {symbol: {"symbol": symbol, "nvt_ratio": 45.2} for symbol in symbols}
"""


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


def test_there_are_such_blocks():
    assert len(blocks("README.md")) >= 1 and len(blocks("docs/python.md")) >= 2


@pytest.mark.parametrize(
    ("document", "place"), [(name, n) for name in ("README.md", "docs/python.md") for n in range(len(blocks(name)))]
)
def test_a_block_runs(document, place, url):
    block = blocks(document)[place]
    for example in ("redis://localhost:6379", "embedded://"):
        block = block.replace(f'"{example}"', repr(url))
    if "async def main()" in block and "asyncio.run(main())" not in block:
        block += "\nasyncio.run(main())\n"
    printed = run_python(PRELUDE + block)
    if document == "README.md":
        assert printed == "{'symbol': 'BTC', 'price': 45000.5}\n"
