#!/usr/bin/env bash
# Fuzzes every decoder of the protocol for a bounded time; fails on the first crash.
#   tests/fuzz.sh [SECONDS_PER_TARGET=20] [TARGET...]
# Needs a nightly toolchain (rustup) and a C++ compiler; cargo-fuzz is installed when missing. Corpora, build outputs
# and crashing inputs are kept in ${XDG_CACHE_HOME:-~/.cache}/oxidask/fuzz, so that later runs go on where this one ended.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(frames message key pickle handshake)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oxidask/fuzz
export CARGO_TARGET_DIR=$cache/target

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: no nightly toolchain; install one with: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
if ! command -v cargo-fuzz >/dev/null; then
    cargo install cargo-fuzz --version 0.13.2 --locked
fi
python=${OXIDASK_PYTHON:-python3}
if command -v "$python" >/dev/null; then
    "$python" runtime/fuzz/seed.py "$cache/corpus"
fi
# Safe Rust needs no address sanitizer; without it the targets run several times faster.
cargo +nightly fuzz build --fuzz-dir runtime/fuzz --sanitizer none --target-dir "$CARGO_TARGET_DIR"
for target in "${targets[@]}"; do
    mkdir -p "$cache/corpus/$target" "$cache/artifacts/$target"
    echo "fuzz: $target for ${seconds}s"
    log=$cache/$target.log
    if ! cargo +nightly fuzz run --fuzz-dir runtime/fuzz --sanitizer none --target-dir "$CARGO_TARGET_DIR" \
        "$target" "$cache/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$cache/artifacts/$target/" >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "fuzz: $target crashed; its input lies in $cache/artifacts/$target" >&2
        exit 1
    fi
    grep -E "^(Done|#[0-9]+.*DONE)" "$log" || true
done
echo "fuzz: no crash"
