#!/usr/bin/env bash
# Installs what the tests need, then runs all of them; the last line says how many passed and failed.
#
#   ./test.sh                what every change has to pass
#   ./test.sh --long         that, and then the long runs: more random commands, more crashes, the fuzz targets
#   ./test.sh --only STAGE   one stage alone, for work on it; ./test.sh --list names them
#
# It needs Rust and, on Debian, root (or sudo) for the packages that are missing; PyPI and crates.io are the other sources. It
# can be run again at any time: what is there already is left alone. Logs stay in `test-logs` in cargo's target directory.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

STAGES=(tools format lints build tests differential-fixed differential-fresh redis-py wheel python doctests documentation release readme)
LONG_STAGES=(long-redis-py long-python long-differential long-crashes long-damage long-floats fuzz)

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }

only=()
with_long=no
while [ $# -gt 0 ]; do
  case "$1" in
    --long) with_long=yes ;;
    --only)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      shift
      only+=("$1")
      ;;
    --list)
      printf '%s\n' "${STAGES[@]}" "${LONG_STAGES[@]}"
      exit 0
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      echo "test.sh: no option $1" >&2
      usage >&2
      exit 2
      ;;
  esac
  shift
done
for stage in ${only[@]+"${only[@]}"}; do
  if [[ " ${STAGES[*]} ${LONG_STAGES[*]} " != *" $stage "* ]]; then
    echo "test.sh: no stage $stage; there are ${STAGES[*]} ${LONG_STAGES[*]}" >&2
    exit 2
  fi
done

# One target directory for everything, as an absolute path because tests run in their own crates' folders.
target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target/test-logs"
target="$(cd "$target" && pwd)"
export CARGO_TARGET_DIR="$target"
logs="$target/test-logs"
export CARGO_TERM_COLOR=never
# A run from a clean checkout never comes back to what incremental compilation leaves behind, and nothing is measured with its release build:
# optimising across crates and telling debuggers of lines, which change no behaviour, are a third of the time that takes.
if [ "${MTCACHE_CI:-}" = true ]; then
  export CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=none
fi

passed=0
failed=0
skipped=0
summary=()
# Of each stage that has begun and not ended: its process, and when it began.
declare -A running=() began=()

# Each stage is a process group of its own, so that Ctrl-C can end all of it: what runs in the background ignores it.
set -m
stop() {
  local name
  for name in "${!running[@]}"; do has_ended "$name" || kill -TERM -- "-${running[$name]}" 2>/dev/null; done
  echo "stopped" >&2
  exit 130
}
trap stop INT TERM

# stage NAME WHAT COMMAND...: runs the command with its output in a log, says every half minute where it is, and counts. A
# command that runs tests counts each of them, any other counts as one.
stage() {
  begin "$@"
  finish "$1"
}

# begin NAME WHAT COMMAND...: begins a stage that runs beside those after it, until `finish` waits for it.
begin() {
  local name="$1" what="$2" log="$logs/$1.log"
  shift 2
  if [ ${#only[@]} -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then return 0; fi
  printf '[%4d s] %s: %s\n' "$SECONDS" "$name" "$what"
  began[$name]=$SECONDS
  rm -f "$log.end"
  {
    local status=0 since=$SECONDS
    "$@" || status=$?
    echo $((SECONDS - since)) >"$log.end"
    exit "$status"
  } >"$log" 2>&1 </dev/null &
  running[$name]=$!
}

# has_ended NAME: its process is not looked at where there is an answer, since another may have its number by now.
has_ended() {
  [ -e "$logs/$1.log.end" ] || ! kill -0 "${running[$1]}" 2>/dev/null
}

# finish NAME: waits for a stage's end, says what came of it, and fails if it has; of one that was not to run it says nothing.
finish() {
  local name="$1" log="$logs/$1.log" process="${running[$1]:-}" status=0 took counts
  [ -n "$process" ] || return 0
  local next=$((SECONDS + 30))
  while ! has_ended "$name"; do
    sleep 0.2
    if [ $SECONDS -ge $next ]; then
      printf '[%4d s]   ... %s\n' "$SECONDS" "$(tail -c 2000 "$log" | tr '\r' '\n' | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c 1-140)"
      next=$((SECONDS + 30))
    fi
  done
  wait "$process" || status=$?
  unset "running[$name]"
  took="$(cat "$log.end" 2>/dev/null || echo $((SECONDS - began[$name])))"
  counts="$(count "$log" "$status")"
  read -r p f s <<<"$counts"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if [ "$f" -gt 0 ]; then
    summary+=("FAILED  $name: $f of $((p + f)) failed, $took s (log: $log)")
    printf '[%4d s] %s FAILED after %d s; the end of %s:\n' "$SECONDS" "$name" "$took" "$log"
    tail -n 80 "$log" | sed 's/^/    /'
    return 1
  fi
  summary+=("ok      $name: $p passed, $took s")
  printf '[%4d s] %s: %d passed in %d s\n' "$SECONDS" "$name" "$p" "$took"
}

# count LOG STATUS: prints "passed failed skipped" from what a test runner printed, or from the exit status. A status that is
# not zero is a failure even when all the tests that ran have passed.
count() {
  awk -v status="$2" '
    # nextest: Summary [  12.3s] 345 tests run: 344 passed (2 slow), 1 failed, 3 skipped
    /^ *Summary \[/ && / tests? run:/ { for (i = 2; i <= NF; i++) add($i, $(i - 1)) }
    # cargo test: test result: ok. 12 passed; 0 failed; 1 ignored; ...
    /^test result:/ { for (i = 2; i <= NF; i++) add($i, $(i - 1)) }
    # pytest: 1 failed, 155 passed, 6 skipped in 18.66s
    /^(=+ )?[0-9]+ (passed|failed|skipped|errors?)/ && / in [0-9.]+s/ { for (i = 2; i <= NF; i++) add($i, $(i - 1)) }
    function add(word, number) {
      gsub(/[^a-z]/, "", word)
      if (number !~ /^[0-9]+$/) return
      if (word == "passed") { p += number; seen = 1 }
      if (word == "failed" || word == "timed" || word == "exec" || word ~ /^errors?$/) { f += number; seen = 1 }
      if (word == "skipped" || word == "ignored") s += number
    }
    END {
      if (!seen && status == 0) p = 1
      if (status != 0 && f == 0) f = 1
      print p + 0, f + 0, s + 0
    }' "$1"
}

# in_spare_time COMMAND...: runs what only computes on what all others leave of the processors: what runs beside it has deadlines.
in_spare_time() {
  chrt --idle --pid 0 $BASHPID 2>/dev/null || renice -n 19 -p $BASHPID >/dev/null
  "$@"
}

# after NAME COMMAND...: has a stage that has begun wait for the end of another, if that has, too.
after() {
  while [ -n "${running[$1]:-}" ] && ! has_ended "$1"; do sleep 0.5; done
  since=$SECONDS
  shift
  "$@"
}

install_tools() {
  local missing=()
  # C compiler and make: the Lua interpreter, SQLite, zstd and the allocator are built from source.
  command -v cc >/dev/null && command -v make >/dev/null || missing+=(build-essential)
  ls -d /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
  command -v setpriv >/dev/null || missing+=(util-linux)
  if [ ${#missing[@]} -gt 0 ]; then
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    echo "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    # RUNLEVEL=1 keeps the packages from starting servers of their own.
    "${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends "${missing[@]}" || return 1
  fi
  { cargo fmt --version && cargo clippy --version; } || rustup component add rustfmt clippy || return 1
  scripts/install-test-tools.sh
}

has_nextest() { cargo nextest --version >/dev/null 2>&1; }

build_tests() {
  # Everything that the tests use, in one go and with one set of features: tests of several crates start the binary.
  cargo build --workspace --all-targets --locked
}

run_tests() {
  if has_nextest; then
    cargo nextest run --workspace --locked --status-level slow --final-status-level slow \
      -E 'not (package(mtcache-conformance) and binary(differential))'
  else
    # The same tests by cargo's own runner; the differential test, a stage of its own, is let through without work.
    MTCACHE_COMMANDS=0 cargo test --workspace --lib --bins --tests --no-fail-fast --locked
  fi
}

# differential SEED COMMANDS: random commands on our server and on redis-server; no seed means the clock.
differential() {
  [ -z "$1" ] || export MTCACHE_SEED="$1"
  export MTCACHE_COMMANDS="$2"
  if has_nextest; then
    cargo nextest run --workspace --locked --success-output final --status-level slow \
      -E 'package(mtcache-conformance) and binary(differential)'
  else
    cargo test --package mtcache-conformance --test differential --locked -- --nocapture
  fi
}

# The last line is in the form of a test runner, for the count: what has to pass here, and what does not.
redis_py() {
  python3 scripts/redis-py-suite.py --mtcache "$target/debug/mtcache" --keep "$logs/redis-py" "$@"
}

# The wheel is built with cargo's dev profile: what is tested is behaviour, and its debug assertions are on.
python_package() {
  if [ -n "${began[wheel]:-}" ]; then export WHEEL && WHEEL="$(ls "$target"/python/dev/*.whl)" || return; fi
  scripts/python-package.sh test "$@"
}

documentation() {
  RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
}

readme() {
  cargo build --quiet --locked --package xtask || return
  MTCACHE_BIN="$target/release/mtcache" "$target/debug/xtask" examples README.md
}

long_crashes() {
  MTCACHE_HISTORIES=2000 cargo nextest run --workspace --locked --status-level slow \
    -E 'package(mtcache-persistence) and binary(crash) or package(mtcache-node) and binary(rewrites)'
}

long_damage() {
  MTCACHE_DAMAGES=10000 MTCACHE_DATASETS=100 cargo nextest run --workspace --locked --status-level slow \
    -E 'package(mtcache-node) and binary(snapshot_damage) or package(mtcache-conformance) and binary(interchange)'
}

long_floats() {
  DOUBLE_ROUNDS=50000000 cargo test --release --package mtcache-protocol --lib --locked double
}

fuzz() {
  cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked || return 1
  local name
  for name in requests frames rdb aof stored; do
    mkdir -p "fuzz/corpus/$name"
    # What earlier runs have found.
    if [ -f "fuzz/kept/$name.tar.gz" ]; then tar -xzf "fuzz/kept/$name.tar.gz" -C "fuzz/corpus/$name" || return 1; fi
    cargo fuzz run -s none "$name" "fuzz/corpus/$name" "fuzz/seeds/$name" -- \
      "-dict=fuzz/$name.dict" -max_total_time=180 || return 1
  done
}

# Tests that start our server start this one; without it, each would ask cargo for it, with another set of features.
export MTCACHE_BIN="$target/debug/mtcache"

# Most tests wait more than they compute, so what only computes runs beside them, in what they leave.
stage tools 'packages and Python environments' install_tools
stage format 'cargo fmt --check' cargo fmt --all --check
stage lints 'clippy, warnings denied' cargo clippy --workspace --all-targets --locked -- -D warnings
stage build 'everything, with debug assertions' build_tests
built=$?
# In this order because the first is waited for first, and the second has the lock of the build that stages after the tests use.
begin wheel 'of the Python package, beside the next' in_spare_time scripts/python-package.sh dev
begin documentation 'cargo doc, warnings denied, after that' in_spare_time after wheel documentation
begin release 'cargo build --release, after that' in_spare_time after documentation cargo build --release --locked
if [ $built = 0 ]; then
  stage tests 'all crates, the floors, generated documentation, redis-cli and Python clients' run_tests
  stage differential-fixed '200,000 random commands beside redis-server, seed 1' differential 1 200000
  stage differential-fresh '200,000 more, a seed of their own' differential '' 200000
  # Not beside one another: some of redis-py's tests want each of their threads to run within ten milliseconds.
  stage redis-py "redis-py's own tests, RESP2, beside redis-server" redis_py --protocol 2
  if finish wheel; then
    stage python 'the wheel, in a fresh environment, on our server, redis-server and in process' python_package
  fi
  stage doctests 'examples in the API documentation and in README.md' cargo test --workspace --doc --locked
fi
finish wheel
finish documentation
if finish release; then
  stage readme 'every command of README.md, the demo among them' readme
fi
if [ "$with_long" = yes ] || [ ${#only[@]} -gt 0 ]; then
  stage long-redis-py "redis-py's own tests, RESP2 and RESP3, beside redis-server" redis_py
  stage long-python 'the Python package, a million calls' python_package --long
  stage long-differential '5,000,000 random commands' differential '' 5000000
  stage long-crashes 'power loss at every step of 2,000 histories' long_crashes
  stage long-damage '10,000 damages of a snapshot, 100 datasets to every server and back' long_damage
  stage long-floats 'fifty million floats there and back' long_floats
  stage fuzz 'decoders and readers of files, three minutes each' fuzz
fi

echo
printf '%s\n' ${summary[@]+"${summary[@]}"}
echo "all in $SECONDS s"
if [ $((passed + failed)) -eq 0 ]; then failed=1; fi
if [ "$skipped" -gt 0 ]; then
  echo "$passed passed, $failed failed, $skipped skipped"
else
  echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
