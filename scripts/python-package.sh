#!/usr/bin/env bash
# Builds the wheel of the Python package, and tests it where it is installed in a fresh environment.
#
#   scripts/python-package.sh build            the wheel for use, with optimisations; the last line says where it is
#   scripts/python-package.sh test [OPTIONS]   a wheel of cargo's dev profile, and pytest with these options
#
# PYTHON names the interpreter (python3). The tests start MTCACHE_BIN, or the debug build of `mtcache`, and redis-server. What is
# made lies in `python` in cargo's target directory; the environment for the build is kept, the one for the tests is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target/python"
target="$(cd "$target" && pwd)"
export CARGO_TARGET_DIR="$target"
python="${PYTHON:-python3}"
what="${1:-}"
[ $# -eq 0 ] || shift

# wheel FOLDER OPTIONS...: builds into this folder, which holds nothing else afterwards.
wheel() {
  local folder="$1" tools="$target/python/build-tools"
  shift
  if ! "$tools/bin/maturin" --version >/dev/null 2>&1; then
    rm -rf "$tools"
    "$python" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^maturin' crates/python/tests/requirements.txt)"
  fi
  rm -rf "$folder"
  "$tools/bin/maturin" build --quiet --locked --manifest-path crates/python/Cargo.toml --interpreter "$python" --out "$folder" "$@"
}

case "$what" in
  build)
    wheel "$target/python/release" --release
    ls "$target"/python/release/*.whl
    ;;
  test)
    wheel "$target/python/dev" --profile dev
    environment="$target/python/environment"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$target"/python/dev/*.whl
    # It works with nothing else there.
    "$environment/bin/python" -I -c 'import mtcache.compat.redis_client, mtcache; print("mtcache", mtcache.__version__, "from", mtcache.__file__)'
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r crates/python/tests/requirements.txt
    export MTCACHE_BIN="${MTCACHE_BIN:-$target/debug/mtcache}"
    cd crates/python
    exec "$environment/bin/python" -m pytest -q -p no:cacheprovider --pyargs mtcache tests --doctest-modules \
      --ignore-glob='*/compat/shared/*' "$@"
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
