# make demo       the whole system on this machine: chain, master, two workers
# make demo-down  take it away again
# make test       every test
# make bench-chain  the chain side in figures
# make bench-services  master and watcher in figures
# make bench-apiserver  K3S_BINARY's API server with 500 owners, in figures
# make bench-cluster K3S_ANSIBLE=/path  site.yml beside k3s-io/k3s-ansible's, of which a checkout is there
# make image-check  the enclave image, built twice: are the bytes the same?
# make screenshot   the status page's picture in docs/images
# make docs       docs/reference, of what ansible-doc says
# make sanity     ansible-test's checks of modules and plugins; ANSIBLE_CORE=2.21 SANITY_PYTHON=python3.13 for another
# make setup      only what the others need: Debian packages, virtual environment, Move compiler, host image
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --jobs=4 --no-print-directory

PYTHON ?= python3
STATE := .state
BIN := .venv/bin
COMPILER := localnet/k3s_daas_localnet/compiler
SECOND_CLIENT := tests/localnet/mysten
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PACKAGES := iproute2 iptables mmdebstrap openssh-client python3-venv systemd-container
# Only the tests need a browser, and a checkout as a controller makes it.
TEST_PACKAGES := chromium chromium-driver git
STAGE := $(PYTHON) molecule/resources/stage

.PHONY: help setup demo demo-down test lint sanity docs bench-chain bench-services bench-apiserver bench-cluster \
  image-check screenshot
help:
	@sed -n 's/^# make/make/p' Makefile

# By status: dpkg also knows packages that others only suggest, and lists them without an error.
define install_packages
	installed=$$(dpkg-query --show --showformat='$${db:Status-Status}\n' $(1) 2> /dev/null | grep -c '^installed$$' || true); \
	  test "$$installed" = $(words $(1)) || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(1) > /dev/null; }
endef

$(STATE)/packages: Makefile
	@echo "== Debian packages"
	@mkdir -p $(STATE)
	@$(call install_packages,$(PACKAGES))
	@touch $@

$(STATE)/test-packages: Makefile | $(STATE)/packages
	@echo "== Debian packages for the tests"
	@$(call install_packages,$(TEST_PACKAGES))
	@touch $@

# Unpacked, not installed: the package would start a Prometheus on this machine.
$(STATE)/prometheus: | $(STATE)/packages
	@echo "== Prometheus' tool for rules"
	@rm -rf $@.new && mkdir -p $@.new
	@cd $@.new && apt-get -qq download prometheus 2> /dev/null || \
	  { apt-get -qq update && apt-get -qq download prometheus 2> /dev/null; }
	@cd $@.new && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb
	@mv $@.new $@

$(STATE)/venv: requirements/dev.txt pyproject.toml localnet/pyproject.toml | $(STATE)/packages
	@echo "== virtual environment"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip --quiet install --require-hashes -r requirements/dev.txt
	@$(BIN)/pip --quiet install --no-deps --no-build-isolation -e . -e localnet
	@touch $@

$(STATE)/compiler: $(COMPILER)/package.json $(COMPILER)/package-lock.json
	@echo "== Move compiler"
	@mkdir -p $(STATE)
	@npm ci --silent --no-audit --no-fund --prefix $(COMPILER)
	@touch $@

$(STATE)/second-client: $(SECOND_CLIENT)/package.json $(SECOND_CLIENT)/package-lock.json
	@echo "== the localnet's second client"
	@mkdir -p $(STATE)
	@npm ci --silent --no-audit --no-fund --prefix $(SECOND_CLIENT)
	@touch $@

$(STATE)/image.ready: $(wildcard molecule/resources/testhosts/*.py) | $(STATE)/packages
	@echo "== image of the test hosts"
	@$(PYTHON) molecule/resources/testhosts --state-dir $(STATE) image
	@touch $@

# What stands in for AWS, and of the collections that the package ansible holds the one that provisions there and the
# one that sets a controller up. Nothing but the tests needs them here.
$(STATE)/aws: requirements/aws-test.txt requirements/field.txt requirements/collections.yml | $(STATE)/venv
	@echo "== amazon.aws and awx.awx, and moto in AWS's place, for the tests"
	@$(BIN)/pip --quiet install --no-compile --require-hashes -r requirements/aws-test.txt
	@rm -rf $(STATE)/collections && mkdir -p $(STATE)/collections
	@sed -n '/^ansible==/,/# via/p' requirements/field.txt > $(STATE)/collections/ansible.txt
	@$(BIN)/pip --quiet download --no-deps --require-hashes --only-binary=:all: \
	  --dest $(STATE)/collections -r $(STATE)/collections/ansible.txt
	@cd $(STATE)/collections && $(CURDIR)/$(BIN)/python -c "import glob, zipfile; \
	  wheel = zipfile.ZipFile(*glob.glob('ansible-*.whl')); \
	  wanted = ('ansible_collections/amazon/aws/', 'ansible_collections/awx/awx/'); \
	  wheel.extractall(members=[n for n in wheel.namelist() if n.startswith(wanted)])"
	@rm $(STATE)/collections/ansible-*.whl
	@touch $@

# What an execution environment's image has, as far as pip brings it: the tests run playbooks in it as a controller does.
$(STATE)/ee.ready: requirements/ee.txt | $(STATE)/packages
	@echo "== virtual environment as an execution environment has it, for the tests"
	@$(PYTHON) -m venv --clear $(STATE)/ee
	@$(STATE)/ee/bin/pip --quiet install --no-compile --require-hashes -r requirements/ee.txt
	@touch $@

setup: $(STATE)/venv $(STATE)/compiler $(STATE)/image.ready

demo: setup
	@$(BIN)/python molecule/resources/stage --name demo up
	@$(BIN)/ansible-playbook site.yml -i inventories/local
	@$(BIN)/ansible-playbook playbooks/status.yml -i inventories/local

demo-down:
	@$(PYTHON) molecule/resources/stage --name demo down

test: setup $(STATE)/second-client $(STATE)/test-packages $(STATE)/prometheus $(STATE)/aws $(STATE)/ee.ready lint sanity
	@$(BIN)/pytest --numprocesses=3 --dist=worksteal

lint: $(STATE)/venv
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/mypy benchmarks/services.py \
		&& $(BIN)/mypy molecule/resources/image_check.py \
		&& $(BIN)/ansible-lint

sanity: $(STATE)/venv
	@$(BIN)/python tests/sanity/run.py \
	  $(if $(ANSIBLE_CORE),--core $(ANSIBLE_CORE) --python $(or $(SANITY_PYTHON),$(PYTHON)))

docs: $(STATE)/venv
	@$(BIN)/python docs/reference.py

bench-chain: setup
	@$(BIN)/python benchmarks/chain.py

# The load generator: nothing but this needs it.
$(STATE)/wrk: | $(STATE)/packages
	@command -v wrk > /dev/null || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends wrk > /dev/null; }
	@touch $@

bench-services: setup $(STATE)/wrk
	@$(BIN)/python benchmarks/services.py

bench-apiserver: setup
	@$(BIN)/python benchmarks/apiserver.py

# What k3s-ansible runs in: nothing but this needs it.
$(STATE)/field: requirements/field.txt | $(STATE)/packages
	@echo "== virtual environment for k3s-ansible"
	@$(PYTHON) -m venv --clear $@
	@$@/bin/pip --quiet install --require-hashes -r requirements/field.txt
	@touch $@

# WORKERS="1 2 4", ROUNDS=2 and INSTALL_SCRIPT=/path/of/k3s/install.sh where that can't be downloaded.
bench-cluster: setup $(STATE)/field
	@$(BIN)/python benchmarks/cluster.py --k3s-ansible "$(K3S_ANSIBLE)" \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(INSTALL_SCRIPT),--install-script "$(INSTALL_SCRIPT)")

# K3S_BINARY, KERNEL, KERNEL_CMDLINE, NSM_MODULE, GVFORWARDER, EIF_BUILD say what to build from; docs/image.md.
image-check: $(STATE)/venv
	@$(BIN)/python molecule/resources/image_check.py

screenshot: setup $(STATE)/test-packages
	@mkdir -p docs/images
	@K3S_DAAS_SCREENSHOT=$(CURDIR)/docs/images/status-page.png $(BIN)/pytest --quiet tests/master/served/test_picture.py
