#!/usr/bin/env bash
# Runs every fuzz target for a bounded time: fuzz.sh [SECONDS] (default 60). Needs nightly Rust; installs cargo-fuzz where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
command -v cargo-fuzz >/dev/null || cargo install -q cargo-fuzz
for directory in rust/*/fuzz; do
  for target in $(cd "$directory" && cargo +nightly fuzz list); do
    echo "== $directory: $target"
    (cd "$directory" && cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048)
  done
done
python3 -m venv target/fuzz-venv
target/fuzz-venv/bin/pip install -q atheris .
for target in reference manifest config; do
  echo "== parsers in Python: $target"
  target/fuzz-venv/bin/python packaging/fuzz_parsers.py "$target" -max_total_time="$seconds" -rss_limit_mb=2048
done
