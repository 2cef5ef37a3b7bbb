# What there is to do in this repository. "make help" lists it.

CARGO ?= cargo
# Read by nothing: no step may wait for somebody to type.
NO_INPUT := </dev/null

.DEFAULT_GOAL := help
.PHONY: help fetch build test test-container demo bench bench-copy soak fmt lint docs ci clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

fetch: ## Install or download what tests and demo need (PostgreSQL 14 to 18, tools); nothing to do: no network.
	@bash tests/tools/fetch.sh $(NO_INPUT)

build: ## Build everything (debug).
	$(CARGO) build --workspace $(NO_INPUT)

test: fetch build ## Run the unit, property and end-to-end tests, and those of the alerts.
	$(CARGO) test --workspace --doc --quiet $(NO_INPUT)
	$(CARGO) nextest run --workspace $(NO_INPUT)

test-container: fetch ## Build the image of deploy/Dockerfile and run it beside real servers: make test-container PROFILE=dev.
	@bash tests/tools/fetch.sh container $(NO_INPUT)
	@PROFILE=$(or $(PROFILE),release) bash tests/tools/container.sh $(NO_INPUT)

demo: fetch build ## Show a standby that follows its master through load and a SIGKILL.
	@$(CARGO) run --quiet --package relevo-tests --bin demo $(NO_INPUT)

bench: fetch ## Time the apply against a native subscription: make bench VERSIONS="15 18" WORKLOADS="tpcb hot" SCALE=1 ROUNDS=2.
	$(CARGO) build --release --package relevo-cli --package relevo-tests --bins $(NO_INPUT)
	@$${CARGO_TARGET_DIR:-target}/release/bench $(NO_INPUT)

bench-copy: fetch ## Time the copy against pgcopydb, a native subscription and the floor: make bench-copy SCALE=50 ROUNDS=2 JOBS=2.
	@bash tests/tools/fetch.sh pgcopydb $(NO_INPUT)
	$(CARGO) build --release --package relevo-cli --package relevo-tests --bins $(NO_INPUT)
	@# Not by cargo run: of one package alone it would build everything again, with other features.
	@$${CARGO_TARGET_DIR:-target}/release/bench_copy $(NO_INPUT)

soak: fetch build ## Run the tests again with other seeds and longer rounds: make soak ROUNDS=10 FACTOR=5.
	@for round in $$(seq 1 $(or $(ROUNDS),5)); do \
		echo "soak: round $$round"; \
		RELEVO_SOAK=$(or $(FACTOR),5) PROPTEST_CASES=2000 \
			$(CARGO) nextest run --workspace --profile soak $(NO_INPUT) || exit 1; \
	done

fmt: ## Format the sources.
	$(CARGO) fmt --all

lint: ## Check format and lints.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings $(NO_INPUT)

docs: ## Build the documentation of all crates.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items $(NO_INPUT)

ci: fetch lint docs test ## All that must pass before a change lands.

clean: ## Remove what was built (not what was fetched: that is .cache).
	$(CARGO) clean
