#!/usr/bin/env bash
# Time from the start of a server until it answers with a million 200-byte values loaded, from an RDB file and from an
# append-only file of commands: ours beside redis-server, on the same files, in turn. Medians.
# Usage: scripts/load-time.sh MTCACHE_BINARY [ROUNDS] [KEYS]
set -euo pipefail
binary=$1
rounds=${2:-5}
keys=${3:-1000000}
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$dir"' EXIT
mkdir "$dir/rdb" "$dir/aof"
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --dir "$dir/rdb" --save '' --appendonly no --aof-use-rdb-preamble no >"$dir/log" & pid=$!
sleep 1
python3 - "$keys" <<'PY' | redis-cli -p "$port" --pipe >/dev/null
import random, sys
random.seed(1)
letters = "abcdefghijklmnopqrstuvwxyz0123456789"
for i in range(int(sys.argv[1])):
    key = f"market_data:SYM{i:07d}"
    # Values that compression finds nothing in.
    value = "".join(random.choices(letters, k=200))
    sys.stdout.write(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n$200\r\n{value}\r\n")
PY
redis-cli -p "$port" save >/dev/null
redis-cli -p "$port" config set appendonly yes >/dev/null
sleep 1
while redis-cli -p "$port" info persistence | grep -q 'aof_rewrite_in_progress:1\|aof_rewrite_scheduled:1'; do sleep 0.2; done
kill "$pid"; wait "$pid" 2>/dev/null || true
mv "$dir/rdb/appendonlydir" "$dir/aof/"
python3 - "$binary" "$rounds" "$keys" "$dir" "$port" <<'PY'
import os, socket, statistics, subprocess, sys, time
binary, rounds, keys, directory, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])

def load(command, kind):
    """Seconds until all keys are there, and seconds of processor time until then."""
    args = command + ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "0",
                      "--appendonly", "yes" if kind == "aof" else "no", "--dir", os.path.join(directory, kind)]
    begin = time.monotonic()
    server = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"DBSIZE\r\n")
                if client.recv(100) == b":%d\r\n" % keys:
                    break
        except OSError:
            pass
        if server.poll() is not None:
            sys.exit("the server has ended: " + " ".join(args))
        time.sleep(0.002)
    took = time.monotonic() - begin
    with open(f"/proc/{server.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    server.terminate()
    server.wait()
    return took, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

for kind in ["rdb", "aof"]:
    seen = {"ours": [], "redis": []}
    for _ in range(rounds):
        seen["ours"].append(load([binary, "serve"], kind))
        seen["redis"].append(load(["redis-server"], kind))
    middle = {name: [statistics.median(column) for column in zip(*runs)] for name, runs in seen.items()}
    for name, (took, cpu) in middle.items():
        print(f"{kind} {name:5} {took:.2f} s, {cpu:.2f} s of processor time")
    ratios = [ours / theirs for ours, theirs in zip(middle["ours"], middle["redis"])]
    print(f"{kind} ratio {ratios[0]:.2f}, of processor time {ratios[1]:.2f}")
PY
