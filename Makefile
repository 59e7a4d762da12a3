# What can be done here, by name. CI calls these and nothing else.

PROFILE ?= ci
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# The embedded PostgreSQL. Where Maven is installed it fetches the jar; otherwise forebay downloads it by itself.
PG_VERSION := $(shell sed -n 's/.*VERSION: &str = "\(.*\)";/\1/p' src/dev/archive.rs)
PG_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64v8,amd64)
PG_OS := $(if $(filter Darwin,$(shell uname -s)),darwin,linux)
PG_NAME := embedded-postgres-binaries-$(PG_OS)-$(PG_ARCH)
PG_JAR := .forebay/cache/$(PG_NAME)-$(PG_VERSION).jar

.PHONY: help run test lint audit image pg-jar

help: ## prints this
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1:\2/p' $(MAKEFILE_LIST) | while IFS=: read -r name text; do \
		printf '%-8s %s\n' "$$name" "$$text"; done

run: pg-jar ## serves on http://localhost:8000 with an embedded PostgreSQL in ./.forebay
	cargo run --release --locked -- dev

test: pg-jar ## runs every test, on real servers
	./tests/install-deps.sh
	RUST_TEST_THREADS=8 cargo test --profile $(PROFILE) --locked

lint: ## checks format, lints, docs, scripts and the compose file
	cargo fmt --all --check
	cargo clippy --all-targets --profile $(PROFILE) --locked -- -D warnings
	cargo clippy --no-default-features --profile $(PROFILE) --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --lib --no-deps --document-private-items --profile $(PROFILE) --locked
	sh -n .ci/run && sh -n tests/install-deps.sh
	@if docker compose version >/dev/null 2>&1; then docker compose --env-file .env.example config --quiet; \
	else echo 'docker compose is not installed: a test checks the variables of docker-compose.yml, nothing the rest'; fi

audit: ## looks for known holes in the dependencies (loads the RustSec database)
	command -v cargo-audit >/dev/null || cargo install --locked cargo-audit
	cargo audit

image: ## builds the image forebay:latest
	docker build --tag forebay:latest --tag forebay:$(VERSION) .

pg-jar:
	@if [ ! -e $(PG_JAR) ] && [ ! -d $(PG_JAR:.jar=) ] && [ -z "$$FOREBAY_PG_BIN$$FOREBAY_PG_ARCHIVE" ] \
		&& command -v mvn >/dev/null; then \
		install -d -m 755 .forebay .forebay/cache; \
		mvn -q dependency:copy -Dartifact=io.zonky.test.postgres:$(PG_NAME):$(PG_VERSION) \
			-DoutputDirectory=.forebay/cache || echo 'Maven did not get the jar: forebay will look for PostgreSQL itself'; \
	fi
