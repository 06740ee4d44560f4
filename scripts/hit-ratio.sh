#!/usr/bin/env bash
# Hit ratio of a recorded trace through our server and through redis-server: at the same maxmemory, and at the same number of
# resident keys, for allkeys-lru and allkeys-lfu.
# Usage: scripts/hit-ratio.sh MTCACHE_BINARY [MAXMEMORY_BYTES ...]   (default: 6 MB and 16 MB; environment: LIMIT, LANES)
#
# Redis goes first at each size; the maxmemory of ours is then moved, by the slope of what was measured, until as many keys are
# resident at the end as there (within half a percent, eight runs at the most).
set -euo pipefail
binary=$1
shift
sizes=("${@:-6291456}")
[ $# -gt 0 ] || sizes=(6291456 16777216)
trace=$(dirname "$0")/../data/twitter_cluster52.u32pairs.zst
dir=$(mktemp -d)
server=
stop() { [ -z "$server" ] || { kill "$server"; wait "$server" 2>/dev/null || true; server=; }; }
trap 'stop; rm -rf "$dir"' EXIT
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
# run ours|redis POLICY MAXMEMORY: prints "hit ratio in percent, resident keys, evictions".
run() {
  local port json keys
  port=$(free_port)
  local args=(--port "$port" --bind 127.0.0.1 --dir "$dir" --appendonly no --save '' --maxmemory "$3" --maxmemory-policy "$2")
  if [ "$1" = ours ]; then "$binary" serve "${args[@]}" >/dev/null & else redis-server "${args[@]}" >/dev/null & fi
  server=$!
  for _ in $(seq 100); do redis-cli -p "$port" PING >/dev/null 2>&1 && break; sleep 0.1; done
  json=$("$binary" replay "$trace" --url "redis://127.0.0.1:$port" --lanes "${LANES:-16}" ${LIMIT:+--limit "$LIMIT"} --json)
  keys=$(redis-cli -p "$port" DBSIZE)
  stop
  python3 -c 'import json, sys; r = json.loads(sys.argv[1]); print("%.3f" % (100 * r["hits"] / r["requests"]), sys.argv[2], r["evictions"])' "$json" "$keys"
}
for policy in allkeys-lru allkeys-lfu; do
  for size in "${sizes[@]}"; do
    read -r redis_ratio redis_keys redis_evicted <<<"$(run redis "$policy" "$size")"
    echo "$policy maxmemory $size: redis-server hits $redis_ratio %, $redis_keys keys, $redis_evicted evicted"
    read -r ratio keys evicted <<<"$(run ours "$policy" "$size")"
    echo "$policy maxmemory $size: ours         hits $ratio %, $keys keys, $evicted evicted: $(python3 -c "print('%+.3f points' % ($ratio - $redis_ratio))")"
    near=$size before=$size before_keys=$keys
    for _ in $(seq 8); do
      # Bytes per key by the last two runs, or by the whole in the first step.
      next=$(python3 - "$near" "$keys" "$before" "$before_keys" "$redis_keys" <<'PY'
import sys
near, keys, before, before_keys, wanted = map(int, sys.argv[1:])
slope = (near - before) / (keys - before_keys) if keys != before_keys and near != before else 170
print(round(near + (wanted - keys) * max(50, min(slope, 600))))
PY
)
      before=$near before_keys=$keys near=$next
      read -r ratio keys evicted <<<"$(run ours "$policy" "$near")"
      python3 -c "import sys; sys.exit(abs($keys - $redis_keys) > $redis_keys * 0.005)" && break
    done
    echo "$policy the same keys: ours hits $ratio %, $keys keys at maxmemory $near: $(python3 -c "print('%+.3f points' % ($ratio - $redis_ratio))")"
  done
done
