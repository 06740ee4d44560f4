#!/usr/bin/env bash
# Builds the wheel of the Python package, and tests it where it is installed in a fresh environment.
#
#   scripts/python-package.sh build            the wheel for use, with optimisations; the last line says where it is
#   scripts/python-package.sh dev              a wheel of cargo's dev profile, into `python/dev`
#   scripts/python-package.sh test [OPTIONS]   that, and pytest with these options
#
# PYTHON names the interpreter (python3), or several, each of which the one wheel is tested with. WHEEL names a wheel to test instead of
# building one. The tests start MTCACHE_BIN, or the debug build of `mtcache`, and redis-server. What is made lies in `python` in cargo's
# target directory; the environment for the build is kept, those for the tests are made anew.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target/python"
target="$(cd "$target" && pwd)"
export CARGO_TARGET_DIR="$target"
read -r -a pythons <<<"${PYTHON:-python3}"
what="${1:-}"
[ $# -eq 0 ] || shift

# wheel FOLDER OPTIONS...: builds into this folder, which holds nothing else afterwards.
wheel() {
  local folder="$1" tools="$target/python/build-tools"
  shift
  if ! "$tools/bin/maturin" --version >/dev/null 2>&1; then
    rm -rf "$tools"
    "${pythons[0]}" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "$(grep '^maturin' crates/python/tests/requirements.txt)"
  fi
  rm -rf "$folder"
  "$tools/bin/maturin" build --quiet --locked --manifest-path crates/python/Cargo.toml --interpreter "${pythons[0]}" --out "$folder" "$@"
}

# test_with PYTHON WHEEL OPTIONS...
test_with() {
  local python="$1" wheel="$2" environment="$target/python/environment" pip
  shift 2
  rm -rf "$environment"
  "$python" -m venv "$environment"
  pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all:)
  # Nothing is on the path there that could compile anything.
  PATH="$environment/bin" "${pip[@]}" "$wheel"
  # It works with nothing else there.
  "$environment/bin/python" -I -c 'import sys, mtcache.compat.redis_client, mtcache
print("mtcache", mtcache.__version__, "for Python", sys.version.split()[0], "from", mtcache.__file__)'
  "${pip[@]}" -r crates/python/tests/requirements.txt
  export MTCACHE_BIN="${MTCACHE_BIN:-$target/debug/mtcache}"
  (
    cd crates/python
    "$environment/bin/python" -m pytest -q -p no:cacheprovider --pyargs mtcache tests --doctest-modules --ignore-glob='*/compat/shared/*' "$@"
  )
}

case "$what" in
  build)
    wheel "$target/python/release" --release
    ls "$target"/python/release/*.whl
    ;;
  dev)
    wheel "$target/python/dev" --profile dev
    ;;
  test)
    if [ -z "${WHEEL:-}" ]; then
      wheel "$target/python/dev" --profile dev
      WHEEL="$(ls "$target"/python/dev/*.whl)"
    fi
    for python in "${pythons[@]}"; do
      test_with "$python" "$WHEEL" "$@"
    done
    ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
