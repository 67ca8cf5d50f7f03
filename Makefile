# Each line calls one tool. CARGO_TARGET_DIR and XDG_CACHE_HOME are honoured; the Python environments live in the cache.
.PHONY: build demo test rust-test python-test conformance fuzz lint bench

build:
	cargo build --profile fast --workspace --bins

demo: build
	"$$(bash tests/venv.sh requirements-base.txt)"/bin/python tests/demo/demo.py

test: rust-test python-test conformance fuzz

rust-test:
	OXIDASK_PYTHON="$$(bash tests/venv.sh)/bin/python" cargo test --profile fast --workspace

python-test:
	venv="$$(bash tests/venv.sh)" && cd runtime/python/tests && "$$venv/bin/python" -m pytest -c ../../../tests/pytest.ini .

conformance: build
	bash tests/conformance.sh

fuzz:
	if [ -f tests/fuzz.sh ]; then bash tests/fuzz.sh; fi

lint:
	bash tests/lint.sh

bench:
	cargo build --release --workspace --bins
	"$$(bash tests/venv.sh requirements-base.txt)"/bin/python tests/bench/run.py $(BENCH)
