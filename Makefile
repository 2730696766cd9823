# Everything that is done to knest's sources. Costly results live in knest's cache, keyed by what
# they are made of, so a fresh clone on the same machine reuses them.

SHELL := /bin/bash
CACHE := $(shell scripts/cache-dir)
export PATH := $(CACHE)/tools/bin:$(PATH)
ifndef CARGO_TARGET_DIR
export CARGO_TARGET_DIR := $(CACHE)/target/$(shell { cat Cargo.lock; rustc --version; } 2>/dev/null | sha256sum | cut -c1-16)
endif
$(shell scripts/claim-target '$(CARGO_TARGET_DIR)')
# The knest that images are loaded with and the demo shows.
KNEST ?= $(CARGO_TARGET_DIR)/debug/knest
export KNEST
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)

.PHONY: help demo test build install images lint bench fuzz deps clean
help: ## Print this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: ## Install what is missing, build all, create a two-node cluster and show it
	@scripts/demo

test: ## Build and run every test that this machine can run (KNEST_TEST=full: the long ones too)
	@scripts/test

build: deps ## Build the binary that the tests and the demo run
	cargo build --locked --workspace

install: deps ## Build the release binary and put it and its manual pages into PREFIX
	cargo build --locked --release --package knest
	install -D $(CARGO_TARGET_DIR)/release/knest $(DESTDIR)$(PREFIX)/bin/knest
	$(DESTDIR)$(PREFIX)/bin/knest man $(DESTDIR)$(PREFIX)/share/man/man1

images: build ## Build kernel and node image (KUBERNETES_VERSION=v1.36.3: another one; PUSH=REPOSITORY: to a registry)
	@$(if $(KUBERNETES_VERSION),KNEST_KUBERNETES_VERSION=$(KUBERNETES_VERSION)) $(if $(PUSH),KNEST_PUSH=$(PUSH)) images/build.sh $(if $(PUSH),virtink,all)

lint: deps ## Check formatting, lints, documentation, scripts and, with cargo-deny, dependencies
	@scripts/lint

bench: deps ## Measure what a user waits for, with a release build (BENCH="vmm rootfs hosts cluster")
	@scripts/bench

fuzz: deps ## Feed the parsers what nobody wrote, a minute each (FUZZ_SECONDS=, FUZZ="targets")
	@scripts/fuzz

deps: ## Install what is missing, after asking
	@scripts/install-deps

clean: ## Remove what building leaves in the cache (images stay)
	rm -rf $(CACHE)/target target
