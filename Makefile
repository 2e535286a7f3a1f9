# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every target does its own set-up: environments in build/, keyed on the lock files below tests/requirements.
# `make help` lists the targets. Tests that need a kernel of their own run as root.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := build/venv
IMPORTER := build/galaxy-importer
DOCS := build/docs-env
NOX := build/nox
OLDEST := build/pyroute2-oldest
# Between the oldest and that of the tools, which `make functional` runs with.
PYROUTE2 := 0.7.12 0.8.1
# Locks of other ansible-cores than that of the tools: for this machine's Python, for Debian 13's, and what is to come.
CORE := core-2.18
CORE_DEBIAN13 := core-2.20 core-newest
CORE_NEXT := core-next
WHEELS := build/wheels
LINKED := build/collections/ansible_collections/fleetvpn/routing
COLLECTION := fleetvpn.routing
REQUIREMENTS := tests/requirements

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/build/collections
export ANSIBLE_HOME := $(CURDIR)/build/ansible
export PYTHONDONTWRITEBYTECODE := 1

FAST := lint types docs-lint unit
CHECKS := sanity $(FAST) docs build import-check
STEPS := checks functional functional-alone functional-oldest integration molecule
LONG := functional-long molecule-types demo
MATRIX := matrix-kernel matrix-controllers matrix-sanity matrix-next matrix-hosts matrix-newcomer

.PHONY: help
help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target text; do \
		printf '  make %-18s %s\n' "$$target" "$$text"; done

.PHONY: setup
setup: $(VENV)/.done $(LINKED) ## Packages of the system that are missing, tools in build/venv

.PHONY: demo
demo: root setup ## A fleet on this machine: replies astray, one playbook, replies right (root; three minutes)
	python -m tests.lab.demo

.PHONY: test
test: root ## Everything that must pass at every change (root; under an hour on two cores)
	@MAKE=$(MAKE) tests/tools/steps.sh $(STEPS)

.PHONY: test-fast
test-fast: ## Linters, types, documentation, unit tests (under two minutes)
	@MAKE=$(MAKE) tests/tools/steps.sh $(FAST)

.PHONY: test-long
test-long: root ## What takes too long for every change: run it before a release (root; an hour or more)
	@MAKE=$(MAKE) tests/tools/steps.sh $(LONG)

# The longest first. What each says comes out whole, when it is done.
.PHONY: checks
checks: setup ## All that needs neither root nor a kernel, two at a time
	$(MAKE) --jobs 2 --keep-going --output-sync=target $(CHECKS)

.PHONY: lint
lint: setup $(NOX)/.done license-check ansible-lint ## ruff, vermin, yamllint, shellcheck, codespell, REUSE, ansible-lint, nox sessions
	ruff check
	ruff format --check
	vermin --quiet --no-tips --target=3.9- --violations plugins
	yamllint --strict .
	shellcheck .ci/run $$(git ls-files --cached --others --exclude-standard '*.sh')
	git ls-files -z --cached --others --exclude-standard | xargs --null codespell
	python tests/tools/spelling.py
	$(NOX)/bin/antsibull-nox lint-config
	$(NOX)/bin/nox --list > /dev/null

.PHONY: license-check
license-check: setup ## A licence in each file, by REUSE; part of lint
	reuse lint --quiet || { reuse lint; exit 1; }

.PHONY: ansible-lint
ansible-lint: setup ## ansible-lint's production profile; part of lint
	ansible-lint --offline

.PHONY: types
types: setup ## mypy --strict on plugins/ and on what roles run on hosts
	mypy --package ansible_collections.fleetvpn.routing.plugins
	mypy roles/*/files/*.py

.PHONY: docs-lint
docs-lint: setup ## antsibull-docs on every plugin and role, antsibull-changelog on the fragments
	cd $(LINKED) && antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck --validate-collection-refs self --disallow-unknown-collection-refs .
	antsibull-changelog lint
	antsibull-changelog lint-changelog-yaml --strict changelogs/changelog.yaml

.PHONY: docs
docs: setup $(DOCS)/.done ## The documentation site in build/docs/html, without a single warning
	tests/tools/docs.sh

.PHONY: links
links: setup $(DOCS)/.done ## Links that leave the repository lead somewhere; asks the Internet, so no part of make test
	tests/tools/docs.sh linkcheck

.PHONY: sanity
sanity: setup ## ansible-test sanity, without a single ignored error
	tests/tools/ansible_test.sh sanity --color yes

.PHONY: unit
unit: setup ## Tests that need neither root nor a kernel
	pytest tests/unit

# Most of such a test is waiting, so three files go side by side, the longest first.
.PHONY: functional
functional: root setup ## Tests on the real kernel, in network namespaces (root)
	pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not alone and not long" \
		tests/functional/test_sigkill.py tests/functional/recipe tests/functional

.PHONY: functional-alone
functional-alone: root setup ## Those of them that measure time (root)
	pytest tests/functional -m "alone and not long"

.PHONY: functional-oldest
functional-oldest: root $(OLDEST)/.done ## Netlink itself with the oldest pyroute2 that is supported (root)
	$(OLDEST)/bin/pytest tests/functional -m kernel

.PHONY: functional-long
functional-long: root setup ## Coexistence, situations, 500 faults, SSH that is cut off, 200 reconnects (root)
	pytest tests/functional -m long

.PHONY: test-matrix
test-matrix: root ## The other versions of pyroute2, ansible-core, Python and Debian (root; an hour)
	@MAKE=$(MAKE) tests/tools/steps.sh $(MATRIX)

.PHONY: matrix-kernel
matrix-kernel: root setup $(PYROUTE2:%=build/pyroute2-%/.done) ## The contract with the kernel, with each pyroute2 in between (root)
	for version in $(PYROUTE2); do "build/pyroute2-$$version/bin/pytest" tests/functional -m kernel; done

.PHONY: matrix-controllers
matrix-controllers: root setup $(CORE:%=build/%/.done) ## What depends on ansible-core, with each other one; new ones on Debian 13 (root)
	for lock in $(CORE); do "build/$$lock/bin/pytest" tests/unit; "build/$$lock/bin/pytest" tests/functional -m controller; done
	FLEETVPN_SUITE=trixie tests/tools/image.sh build
	for lock in $(CORE_DEBIAN13); do tests/tools/controller.sh "$$lock"; done

.PHONY: matrix-sanity
matrix-sanity: root setup $(CORE:%=build/%/.done) ## ansible-test sanity with each other ansible-core, as for matrix-controllers (root)
	for lock in $(CORE); do FLEETVPN_VENV="build/$$lock" tests/tools/ansible_test.sh sanity --color yes; done
	FLEETVPN_SUITE=trixie tests/tools/image.sh build
	for lock in $(CORE_DEBIAN13); do tests/tools/controller.sh "$$lock" sanity; done

.PHONY: matrix-next
matrix-next: root setup ## The same with the newest pre-release, which may fail and then says so (root)
	FLEETVPN_SUITE=trixie tests/tools/image.sh build
	@tests/tools/controller.sh $(CORE_NEXT) || printf '\n!!!! %s\n\n' "The pre-release of ansible-core in $(REQUIREMENTS)/$(CORE_NEXT).txt FAILS; not an error yet."

.PHONY: matrix-hosts
matrix-hosts: root setup $(WHEELS)/.done ## Molecule on Debian 13, sid, and 11 with a pyroute2 that is handed over (root)
	for suite in trixie sid; do \
		FLEETVPN_SUITE=$$suite tests/tools/image.sh build; \
		FLEETVPN_SUITE=$$suite tests/tools/molecule.sh test --scenario-name wireguard; \
	done
	FLEETVPN_SUITE=bullseye tests/tools/image.sh build
	FLEETVPN_SUITE=bullseye FLEETVPN_PYROUTE2_WHEEL=$$(echo $(CURDIR)/$(WHEELS)/pyroute2-*.whl) \
		tests/tools/molecule.sh test --scenario-name openvpn

.PHONY: matrix-newcomer
matrix-newcomer: root setup ## README and "Start here", typed as they stand, on a fresh Debian 12 and 13 (root)
	for suite in bookworm trixie; do FLEETVPN_SUITE=$$suite pytest tests/newcomer; done

.PHONY: pictures
pictures: root setup ## The pictures of the report in docs/, of a fleet of a hundred with three bad hosts (root; minutes)
	pytest tests/functional/test_fleet_bad.py -m long
	for scheme in light dark; do cp "build/report-$$scheme-100.png" "docs/report-$$scheme.png"; done

.PHONY: bench
bench: root setup ## What it costs, against ping, ip and pyroute2, into bench/results.json (root; on an idle machine)
	python -m tests.bench

.PHONY: integration
integration: root setup ## The targets of ansible-test, one per module, in namespaces of their own (root)
	tests/tools/ansible_test.sh integration --allow-root --allow-destructive --color yes

.PHONY: image
image: setup ## The container image of the Molecule scenarios (root)
	tests/tools/image.sh build

.PHONY: molecule
molecule: root image ## Real tunnels between containers with systemd (root)
	tests/tools/molecule.sh test --scenario-name wireguard
	tests/tools/molecule.sh test --scenario-name openvpn

.PHONY: molecule-types
molecule-types: root image ## The same with the other types of VPN (root)
	tests/tools/molecule.sh test --scenario-name openconnect
	tests/tools/molecule.sh test --scenario-name ipsec
	tests/tools/molecule.sh test --scenario-name overlay
	tests/tools/molecule.sh test --scenario-name nebula
	tests/tools/molecule.sh test --scenario-name ppp

.PHONY: build
build: setup ## The artefact, in build/
	rm -f build/fleetvpn-routing-*.tar.gz
	ansible-galaxy collection build --output-path build --force

.PHONY: import-check
import-check: setup $(IMPORTER)/.done ## galaxy-importer accepts the artefact and refuses a broken one
	pytest tests/artefact

.PHONY: release
release: setup $(IMPORTER)/.done ## The artefact of this version in build/release, checked and reproducible, signed with KEY=...
	tests/tools/release.sh $(KEY)

.PHONY: format
format: setup ## Format the Python code
	ruff check --fix
	ruff format

.PHONY: lock
lock: ## Newest versions of the tools into the lock files
	for source in $(REQUIREMENTS)/*.in; do tests/tools/lock.sh "$$source"; done

.PHONY: clean
clean: ## Remove build/
	rm -rf build

.PHONY: root
root:
	@[ "$$(id -u)" -eq 0 ] || { echo "This makes network namespaces and containers: run it as root (sudo make ...)." >&2; exit 1; }

build/.system: bindep.txt tests/tools/system_packages.sh
	tests/tools/system_packages.sh
	@mkdir -p $(@D)
	@touch $@

$(VENV)/.done: $(REQUIREMENTS)/tools.txt tests/tools/venv.sh | build/.system
	tests/tools/venv.sh $(@D) $<
	@touch $@

$(IMPORTER)/.done: $(REQUIREMENTS)/galaxy-importer.txt tests/tools/venv.sh | build/.system
	tests/tools/venv.sh $(@D) $<
	@touch $@

$(DOCS)/.done: $(REQUIREMENTS)/docs.txt tests/tools/venv.sh | build/.system
	tests/tools/venv.sh $(@D) $<
	@touch $@

$(NOX)/.done: $(REQUIREMENTS)/nox.txt tests/tools/venv.sh | build/.system
	tests/tools/venv.sh $(@D) $<
	@touch $@

$(OLDEST)/.done: $(REQUIREMENTS)/pyroute2-oldest.txt tests/tools/venv.sh | build/.system
	tests/tools/venv.sh $(@D) $<
	@touch $@

build/core-%/.done: $(REQUIREMENTS)/core-%.txt tests/tools/venv.sh | build/.system
	tests/tools/venv.sh $(@D) $<
	@touch $@

$(WHEELS)/.done: $(REQUIREMENTS)/tools.txt $(VENV)/.done
	rm -rf $(@D)
	$(VENV)/bin/pip download --quiet --quiet --no-deps --only-binary :all: --dest $(@D) "$$(grep '^pyroute2==' $<)"
	@touch $@

# As for the oldest, with another version of it.
build/pyroute2-%/.done: $(REQUIREMENTS)/pyroute2-oldest.txt tests/tools/venv.sh | build/.system
	sed 's/^pyroute2==.*/pyroute2==$*/' $< > build/pyroute2-$*.txt
	tests/tools/venv.sh $(@D) build/pyroute2-$*.txt
	@touch $@

# Ansible, mypy and the tests find the collection by its name where it is linked.
$(LINKED):
	mkdir -p $(@D)
	ln -s $(CURDIR) $@
