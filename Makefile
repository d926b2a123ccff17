# The first use of demo, test, verify, bench, docs, notebooks or lint installs everything that requirements.lock names into .venv;
# after that nothing is installed again until the lock, pyproject.toml or .ci/setup changes.
.DEFAULT_GOAL := help
.PHONY: help demo test test-torch verify bench docs notebooks lint lock clean

PYTHON := .venv/bin/python

# Tests run in two processes, each on one thread (tests/conftest.py): small tensors gain nothing from more.
TWO := -n 2 --dist loadfile

# Outside of the lock, see requirements-torch.lock.
TORCH := torch==2.13.0

help:  ## list what make can do here
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/ready  ## train a small network, export it, run it as spikes in Lava, compare
	@$(PYTHON) -m lava_casc.demo

test: .venv/ready  ## the fast tests, Lava included
	@$(PYTHON) -m pytest $(TWO)

test-torch: .venv-torch/ready  ## the tests outside of Lava, with Python 3.11 or later and a current torch
	@.venv-torch/bin/python -m pytest $(TWO) -m "not slow and not lava"

verify: .venv/ready  ## every test, the long exactness runs too
	@$(PYTHON) -m pytest $(TWO) -m "slow or not slow"

# BENCH holds more options, such as --page docs/performance.md; see benchmarks/run.py --help.
bench: .venv/ready  ## how fast everything is, side by side with what else there is, in ten minutes
	@mkdir -p out
	@$(PYTHON) benchmarks/run.py --json out/bench.json $(BENCH)

docs: .venv/ready  ## the documentation as a site, in out/docs, without a network
	@rm -rf out/docs docs/api
	@$(PYTHON) -m sphinx -b html -W --keep-going -q docs out/docs
	@$(PYTHON) docs/check.py out/docs
	@echo out/docs/index.html

notebooks: .venv/ready  ## execute the notebooks, and write them with what they print and draw
	@$(PYTHON) notebooks/make.py

lint: .venv/ready  ## style, format and types
	@$(PYTHON) -m ruff check --output-format concise
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy

.venv/ready: requirements.lock pyproject.toml .ci/setup
	@.ci/setup .venv requirements.lock "3.10"

.venv-torch/ready: requirements-torch.lock pyproject.toml .ci/setup
	@.ci/setup .venv-torch requirements-torch.lock "3.11 3.12 3.13 3.14" $(TORCH)

# uv keeps the versions that a lock holds already: delete a lock first to take the newest of everything.
lock:  ## resolve both lock files again (needs uv)
	@.ci/lock $(TORCH)

clean:  ## remove the environments and all caches
	rm -rf .venv .venv-torch .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
