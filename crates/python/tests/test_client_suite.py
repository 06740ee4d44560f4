"""The client test suite that comes with the package, as its users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mtcache import compat

SUITE = Path(compat.__file__).parent / "shared" / "test_redis_client.py"


def test_the_client_suite_passes_and_says_so(url):
    done = subprocess.run([sys.executable, SUITE, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("✅ ALL TESTS PASSED!\n") and "❌" not in done.stdout
    assert done.stderr == ""


def test_the_client_suite_says_when_there_is_no_server():
    done = subprocess.run([sys.executable, SUITE, "redis://127.0.0.1:1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "❌ Connected" in done.stdout


def test_the_folder_of_the_old_imports_is_told():
    done = subprocess.run([sys.executable, "-m", "mtcache.compat"], capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip(), "shared", "redis_client.py").exists()
