#!/usr/bin/env bash
# CPU of the server per operation, by its own accounting, under redis-benchmark: ours beside redis-server, in turn.
# Usage: scripts/cpu-per-op.sh MTCACHE_BINARY [ROUNDS]   (environment: REQUESTS, APPENDONLY=no|yes, TESTS="set get", PIPELINES="1 16")
set -euo pipefail
binary=$1
rounds=${2:-5}
requests=${REQUESTS:-300000}
appendonly=${APPENDONLY:-no}
read -ra tests <<<"${TESTS:-set get}"
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$dir"' EXIT
mkdir "$dir/ours" "$dir/redis"
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
ours=$(free_port); redis=$(free_port)
"$binary" serve --port "$ours" --bind 127.0.0.1 --dir "$dir/ours" --appendonly "$appendonly" --save '' --maxmemory 0 >"$dir/ours.log" & ours_pid=$!
redis-server --port "$redis" --bind 127.0.0.1 --dir "$dir/redis" --appendonly "$appendonly" --save '' >"$dir/redis.log" & redis_pid=$!
sleep 1
# Nanoseconds that a process has run, all its threads, by its CPU clock (what clock_getcpuclockid(3) would say): the ticks that are told in
# /proc are 10 ms, 0.03 us of each of 300,000 operations.
ran() { python3 -c "import time; print(time.clock_gettime_ns(~$1 << 3 | 2))"; }
one() { # name pid port test pipeline
  local before after ops p99
  before=$(ran "$2")
  IFS=, read -r ops p99 < <(redis-benchmark -p "$3" -t "$4" -n "$requests" -c 50 -d 200 -r 100000 -P "$5" --threads 1 --csv |
    tail -1 | cut -d, -f2,7 | tr -d '"')
  after=$(ran "$2")
  awk -v n="$1" -v t="$4" -v p="$5" -v d=$((after - before)) -v r="$requests" -v o="$ops" -v l="$p99" \
    'BEGIN { printf "%s %s P%d %.3f us/op %.0f ops/s %.3f ms p99\n", n, t, p, d / r / 1e3, o, l }'
}
for ((round = 0; round < rounds; round++)); do
  for test in "${tests[@]}"; do
    for pipeline in ${PIPELINES:-1 16}; do
      one ours "$ours_pid" "$ours" "$test" "$pipeline"
      one redis "$redis_pid" "$redis" "$test" "$pipeline"
    done
  done
done | tee "$dir/rows"
echo "--- medians of $rounds (server CPU, microseconds per operation; operations per second; p99 of the replies, milliseconds)"
python3 - "$dir/rows" <<'PY'
import sys, statistics, collections
rows = collections.defaultdict(list)
for line in open(sys.argv[1]):
    name, test, pipeline, cpu, _, ops, _, p99, *_ = line.split()
    rows[test, pipeline, name].append((float(cpu), float(ops), float(p99)))
for test, pipeline in sorted({key[:2] for key in rows}):
    ours, redis = (tuple(statistics.median(c) for c in zip(*rows[test, pipeline, n])) for n in ("ours", "redis"))
    print(f"{test:6} {pipeline:4} CPU ours {ours[0]:.3f} redis {redis[0]:.3f} ratio {ours[0] / redis[0]:.2f}"
          f" | ops/s ours {ours[1]:.0f} redis {redis[1]:.0f} ratio {ours[1] / redis[1]:.2f}"
          f" | p99 ours {ours[2]:.3f} redis {redis[2]:.3f} ratio {ours[2] / redis[2]:.2f}")
PY
