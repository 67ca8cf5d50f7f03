#!/usr/bin/env bash
# Makes (once) the virtual environment of a requirements file and prints its path.
# It lies outside the checkout, named after the files it was made from.
#   tests/venv.sh [requirements-base.txt]     default: requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/${1:-requirements.txt}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oxidask

for python in "${OXIDASK_PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
        found=$python
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "venv.sh: no Python 3.11 or newer with the venv module on PATH; set OXIDASK_PYTHON" >&2
    exit 1
fi

version=$("$found" -c 'import sys; print(sys.version, sys.prefix)')
hash=$(cat "$requirements" "$here"/requirements-base.txt "$here"/constraints.txt <(echo "$version") | sha256sum | cut -c1-16)
venv=$cache/venv-$hash

mkdir -p "$cache"
exec 9>"$cache/venv-$hash.lock"
flock 9
if [ ! -e "$venv/.complete" ]; then
    rm -rf "$venv"
    echo "venv.sh: making $venv from $(basename "$requirements")" >&2
    "$found" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
    "$venv/bin/python" -m compileall -q "$venv/lib" >/dev/null 2>&1 || true
    touch "$venv/.complete"
fi
echo "$venv"
