#!/usr/bin/env bash
# CPU of the server per EVAL that reads one key, under redis-benchmark: ours beside redis-server, in turn.
# Usage: scripts/cpu-of-scripts.sh MTCACHE_BINARY [ROUNDS]   (environment: REQUESTS)
set -euo pipefail
binary=$1
rounds=${2:-5}
requests=${REQUESTS:-200000}
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$dir"' EXIT
mkdir "$dir/ours" "$dir/redis"
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
ours=$(free_port); redis=$(free_port)
"$binary" serve --port "$ours" --bind 127.0.0.1 --dir "$dir/ours" --appendonly no --save '' >"$dir/ours.log" & ours_pid=$!
redis-server --port "$redis" --bind 127.0.0.1 --dir "$dir/redis" --appendonly no --save '' >"$dir/redis.log" & redis_pid=$!
sleep 1
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
hz=$(getconf CLK_TCK)
for ((round = 0; round < rounds; round++)); do
  for pipeline in 1 16; do
    for server in "ours $ours_pid $ours" "redis $redis_pid $redis"; do
      read -r name pid port <<<"$server"
      before=$(ticks "$pid")
      redis-benchmark -p "$port" -n "$requests" -c 50 -P "$pipeline" --threads 1 -q \
        eval "return redis.call('get',KEYS[1])" 1 key >/dev/null
      awk -v n="$name" -v p="$pipeline" -v d=$(($(ticks "$pid") - before)) -v hz="$hz" -v r="$requests" \
        'BEGIN { printf "%s P%d %.2f\n", n, p, d / hz / r * 1e6 }'
    done
  done
done | tee "$dir/rows"
python3 - "$dir/rows" <<'PY'
import sys, statistics, collections
rows = collections.defaultdict(list)
for line in open(sys.argv[1]):
    name, pipeline, cpu = line.split()
    rows[pipeline, name].append(float(cpu))
for pipeline in ("P1", "P16"):
    ours, redis = (statistics.median(rows[pipeline, name]) for name in ("ours", "redis"))
    print(f"{pipeline:4} median microseconds per call: ours {ours:.2f} redis {redis:.2f} ratio {ours / redis:.2f}")
PY
