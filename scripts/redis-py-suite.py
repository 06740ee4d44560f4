#!/usr/bin/env python3
"""Runs redis-py's own test suite, out of its source package, against our server and against redis-server.

Prints what passed, failed and was skipped side by side, and every test that passes on redis-server and not on ours. Each of
those either met a command of a family that the engine does not have yet, by our server's own answer, or it is a failure:
then the exit status is 1. Tests for clusters, modules and TLS are left out on both sides by the suite's own marks; those
that need a server on port 6379, or Sentinels, fail on both.

Needs redis-server, python3 with venv, and PyPI. Servers listen on the loopback, on ports of their own, with their data in a
temporary directory; they are stopped at the end.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree

# The suite of 5.2.1 runs with this pytest-asyncio; later ones close the event loop that its fixtures still hold.
PACKAGES = ["pytest==8.4.2", "pytest-asyncio==0.23.8", "pytest-timeout==2.4.0", "numpy"]
# What later suites run with; the libraries stand behind options of theirs.
LATER_PACKAGES = ["pytest==8.4.2", "pytest-asyncio==1.2.0", "pytest-timeout==2.4.0", "numpy", "mock", "pybreaker", "xxhash"]
LATER_PACKAGES += ["opentelemetry-api", "opentelemetry-sdk"]
MARKS = ["redismod", "onlycluster", "onlynoncluster", "ssl", "asyncio", "replica", "experimental", "graph", "fixed_client"]
MARKS += ["pipeline", "cp_integration", "no_mock_connections", "forked"]
LEFT_OUT = "not onlycluster and not redismod and not graph and not ssl"
SECONDS_PER_TEST = 60
# What pytest-timeout says before it ends the whole run, which some tests of the suite have it do after five seconds.
RUN_ENDED = "+ Timeout +"

# What our server answers to commands of a later version, and the groups of Redis' documentation these may be from. A
# command of another group is not excused.
NOT_YET = re.compile(r"'([a-z_|-]+)' is not supported by this version of the engine yet")
# redis-py 6 says so in place of the server's words when a command of a pipeline fails.
SWALLOWED = re.compile(r"Command # \d+ \(([A-Z]+) .*caused error: \{exception\.args\}")
FAMILIES = {"bitmap", "geo", "hyperloglog", "stream", "cluster"}
REPLICATION = {"psync", "sync", "replconf", "failover", "migrate"}
OTHERS = {
    "selectors in parentheses are not supported by this version": "selectors",
    "replication is not supported by this version": "replication",
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mtcache", default=os.environ.get("MTCACHE_BIN", "target/debug/mtcache"), help="our binary")
    arguments.add_argument("--redis-py", default="5.2.1", metavar="VERSION", help="the suite of this version")
    arguments.add_argument("--protocol", type=int, action="append", choices=(2, 3), help="RESP version; both if not given")
    arguments.add_argument("--keep", metavar="FOLDER", help="copy pytest's output and reports there")
    arguments.add_argument("tests", nargs="*", default=["tests"], help="files or folders of the suite")
    options = arguments.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(130))
    with tempfile.TemporaryDirectory(prefix="redis-py-suite-") as folder:
        try:
            return run(options, pathlib.Path(folder))
        finally:
            stop_all()
            if options.keep:
                keep(pathlib.Path(folder), pathlib.Path(options.keep))


def run(options, folder):
    suite = fetch(options.redis_py, folder)
    protocols = options.protocol or [2, 3]
    runs = []
    for protocol in protocols:
        theirs = Server("redis-server", ["redis-server"], folder / f"redis-{protocol}")
        ours = Server("mtcache", [options.mtcache, "serve"], folder / f"mtcache-{protocol}")
        runs.append((protocol, theirs, ours))
    print(f"redis-py {options.redis_py}, {' and '.join(f'RESP{protocol}' for protocol in protocols)}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [
            [pool.submit(test, suite, folder, server, protocol, options.tests) for server in servers]
            for protocol, *servers in runs
        ]
        results = [[one.result() for one in pair] for pair in waiting]
    unexplained = both = 0
    for (protocol, theirs, ours), (there, here) in zip(runs, results):
        unexplained += report(suite, folder, protocol, theirs, ours, there, here)
        both += sum(outcome == "passed" == here.get(node, ("",))[0] for node, (outcome, _) in there.items())
    # As a test runner says it, of the tests that pass on redis-server and whose commands the engine has.
    print(f"\ntest result: {'FAILED' if unexplained else 'ok'}. {both} passed; {unexplained} failed")
    return 1 if unexplained else 0


def fetch(version, folder):
    """Makes the Python environment and unpacks the suite."""
    python = folder / "venv" / "bin" / "python"
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    packages = PACKAGES if version.startswith("5.") else LATER_PACKAGES
    subprocess.run([python, "-m", "pip", "install", *quiet, *packages], check=True)
    subprocess.run(
        [python, "-m", "pip", "download", *quiet, "--no-binary", ":all:", "--no-deps", "--dest", folder, f"redis=={version}"],
        check=True,
    )
    with tarfile.open(folder / f"redis-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    suite = folder / f"redis-{version}"
    if not (suite / "tests" / "conftest.py").exists():
        sys.exit(f"the source package of redis {version} carries no tests")
    # Looked for when the tests of TLS are collected, although none of them runs.
    for name in ("cluster", "standalone"):
        (suite / "dockers" / name / "tls").mkdir(parents=True, exist_ok=True)
    marks = "".join(f"\n    {mark}:" for mark in MARKS)
    (folder / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = auto\nmarkers ={marks}\n")
    return suite


RUNNING = []


class Server:
    """A server on a free port of the loopback, ready when the constructor returns."""

    def __init__(self, name, command, folder):
        self.name = name
        folder.mkdir()
        for _ in range(5):
            self.port = free_port()
            arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
            arguments += ["--appendonly", "no", "--enable-debug-command", "yes"]
            with open(folder / "log", "wb") as log:
                self.process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            RUNNING.append(self.process)
            if self.is_ready():
                return
        sys.exit(f"{name} does not start: {(folder / 'log').read_text()}")

    def is_ready(self):
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            try:
                return self.ask("PING").startswith(b"+PONG")
            except OSError:
                time.sleep(0.05)
        return False

    def ask(self, line):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as stream:
            stream.sendall(line.encode() + b"\r\n")
            return stream.recv(65536)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop_all():
    for process in RUNNING:
        if process.poll() is None:
            process.terminate()
    for process in RUNNING:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test(suite, folder, server, protocol, tests, name=""):
    """Runs tests of the suite against a server: what became of each, with the message of what failed."""
    stem = folder / f"{server.name}-resp{protocol}{name}"
    command = [folder / "venv" / "bin" / "python", "-m", "pytest", "-c", folder / "pytest.ini", "--rootdir", suite]
    # A file that asks for what is not installed here counts as failed, on both sides.
    command += ["--continue-on-collection-errors"]
    command += ["-p", "no:cacheprovider", "--tb", "native", "-q", "-m", LEFT_OUT]
    # By a signal a test that hangs fails alone; the other way ends the whole run.
    command += ["--timeout", str(SECONDS_PER_TEST), "--timeout-method", "signal"]
    command += ["--junitxml", f"{stem}.xml", "--protocol", str(protocol)]
    # The suite's fixtures ask for the address by name, and some tests compare the URL that they were given.
    command += ["--redis-url", f"redis://localhost:{server.port}/0", *tests]
    status = pytest(command, suite, f"{stem}.log")
    if not os.path.exists(f"{stem}.xml") and RUN_ENDED in pathlib.Path(f"{stem}.log").read_text(errors="replace"):
        # One of them hangs for good when the machine has kept one of its threads waiting for ten milliseconds, so all get a second chance.
        os.replace(f"{stem}.log", f"{stem}-ended.log")
        print(f"{server.name}: a test's timeout has ended the run; all of them again", flush=True)
        status = pytest(command, suite, f"{stem}.log")
    if status not in (0, 1) or not os.path.exists(f"{stem}.xml"):
        end = pathlib.Path(f"{stem}.log").read_text(errors="replace")[-3000:]
        sys.exit(f"{server.name}: pytest ended with {status}:\n{end}")
    found = {}
    for case in ElementTree.parse(f"{stem}.xml").iter("testcase"):
        path, _, name = case.get("classname").partition(".Test")
        node = f"{path.replace('.', '/')}.py::" + (f"Test{name}::" if name else "") + case.get("name")
        outcome, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome, message = "failed", f"{child.get('message')}\n{child.text}"
            elif child.tag == "skipped":
                outcome = "skipped"
        if node not in found or found[node][0] == "passed":
            found[node] = outcome, message
    return found


def pytest(command, suite, log):
    """Runs pytest with its output in a file: its exit status, or what it ended with."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=suite, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    RUNNING.append(process)
    try:
        return process.wait(1200)
    except subprocess.TimeoutExpired:
        process.kill()
        return "after twenty minutes"


def report(suite, folder, protocol, theirs, ours, there, here):
    """Prints a comparison and answers how many tests should have passed."""
    behind = not_as_good(there, here)
    unexplained = {node: message for node, message in behind.items() if family(theirs, message) is None}
    if unexplained:
        # Alone and without the load of the other runs, on both sides: what a stalled machine did is not the server's.
        there.update(test(suite, folder, theirs, protocol, list(unexplained), "-again"))
        here.update(test(suite, folder, ours, protocol, list(unexplained), "-again"))
        behind = not_as_good(there, here)
    version = re.search(r"redis_version:(\S+)", theirs.ask("INFO SERVER").decode())[1]
    print(f"\nRESP{protocol:<22}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for name, results in ((f"redis-server {version}", there), ("mtcache", here)):
        counts = collections.Counter(outcome for outcome, _ in results.values())
        print(f"{name:<26}" + "".join(f"{counts[outcome]:>8}" for outcome in ("passed", "failed", "skipped")))
    families = collections.Counter(family(theirs, message) for message in behind.values())
    better = sum(here.get(node, ("", ""))[0] == "passed" and outcome == "failed" for node, (outcome, _) in there.items())
    print(f"pass there and not here: {len(behind)}; pass here and fail there: {better}")
    for name, count in sorted((name, count) for name, count in families.items() if name):
        print(f"    {name}, not implemented yet: {count}")
    failures = {node: message for node, message in behind.items() if family(theirs, message) is None}
    for node, message in sorted(failures.items()):
        print(f"    FAILURE {node}\n        " + message.strip().splitlines()[-1])
    print(f"    of implemented families: {len(failures)}", flush=True)
    return len(failures)


def not_as_good(there, here):
    missing = ("missing", "it did not run")
    return {
        node: here.get(node, missing)[1]
        for node, (outcome, _) in there.items()
        if outcome == "passed" and here.get(node, missing)[0] != "passed"
    }


KNOWN_GROUPS = {}


def family(theirs, message):
    """The family, not implemented yet, that a test failed for; `None` if it failed for anything else."""
    for text, name in OTHERS.items():
        if text in message:
            return name
    found = NOT_YET.search(message) or SWALLOWED.search(message)
    if not found:
        return None
    command = found[1].lower()
    if command not in KNOWN_GROUPS:
        reply = theirs.ask(f"COMMAND DOCS {command}")
        group = re.search(rb"\$5\r\ngroup\r\n\$\d+\r\n([a-z-]+)\r\n", reply)
        KNOWN_GROUPS[command] = group[1].decode() if group else ""
    group = KNOWN_GROUPS[command]
    if group in FAMILIES:
        return group
    if command.startswith(("fcall", "function|")):
        return "functions"
    return "replication" if command in REPLICATION else None


def keep(folder, to):
    to.mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob("*.log"), *folder.glob("*.xml")]:
        shutil.copy(path, to)


if __name__ == "__main__":
    sys.exit(main())
