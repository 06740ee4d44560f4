#!/usr/bin/env bash
# Resident bytes per key above key and value bytes, seen from outside, for a million 200-byte values: ours beside
# redis-server, without and with a TTL of an hour.
# Usage: scripts/memory-per-key.sh MTCACHE_BINARY [KEYS]
set -euo pipefail
binary=$1
keys=${2:-1000000}
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$dir"' EXIT
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
rss() { awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$1/status"; }
measure() { # name ttl command...
  local name=$1 ttl=$2 port pid before after
  shift 2
  port=$(free_port)
  "$@" --port "$port" --bind 127.0.0.1 --dir "$dir" --save '' --appendonly no --maxmemory 0 >"$dir/log" & pid=$!
  sleep 1
  before=$(rss "$pid")
  python3 - "$keys" "$ttl" <<'PY' | redis-cli -p "$port" --pipe >/dev/null
import sys
keys, ttl = int(sys.argv[1]), sys.argv[2]
value = "v" * 200
out = sys.stdout
for i in range(keys):
    key = f"market_data:SYM{i:07d}"
    if ttl == "0":
        out.write(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n$200\r\n{value}\r\n")
    else:
        out.write(f"*5\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n$200\r\n{value}\r\n$2\r\nEX\r\n${len(ttl)}\r\n{ttl}\r\n")
PY
  sleep 1
  after=$(rss "$pid")
  [ "$(redis-cli -p "$port" dbsize)" -eq "$keys" ] || { echo "$name holds another number of keys" >&2; exit 1; }
  kill "$pid"; wait "$pid" 2>/dev/null || true
  awk -v n="$name" -v t="$ttl" -v d=$((after - before)) -v k="$keys" \
    'BEGIN { printf "%-6s ttl %-5s %.1f bytes per key above key and value\n", n, t, d / k - 222 }'
}
for ttl in 0 3600; do
  measure ours "$ttl" "$binary" serve
  measure redis "$ttl" redis-server
done
