# Sourced by the other scripts: makes .venv what requirements.lock says, once per change of the lock.
# Says in one sentence what is missing when something is.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
  local candidate
  for candidate in "${WAP_PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "WAP needs Python 3.11 or newer; none was found on PATH (set WAP_PYTHON to its path)." >&2
  return 1
}

prepare_environment() {
  local python stamp wanted
  stamp="$root/.venv/.prepared"
  wanted="$(cat "$root/requirements.lock" "$root/pyproject.toml" | sha256sum) $root"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    return
  fi
  python="$(find_python)"
  echo "Setting up $root/.venv from requirements.lock (once, about a minute) ..." >&2
  "$python" -m venv "$root/.venv" || {
    echo "Python's venv module is missing: install it (Debian: apt-get install python3-venv)." >&2
    return 1
  }
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r "$root/requirements.lock" || {
    echo "The packages of requirements.lock could not be installed; pip says why above." >&2
    return 1
  }
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --editable "$root"
  printf '%s' "$wanted" >"$stamp"
}
