#!/usr/bin/env bash
# The stock client and stock workers against the scheduler that `make build` built. Arguments go to pytest.
#   OXIDASK_TEST_SCHEDULER=stock tests/conformance.sh      the same tests against the stock scheduler
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=$(bash venv.sh)
# Ten thousand sockets are held open by one test, on both ends.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec "$venv/bin/python" -m pytest conformance "$@"
