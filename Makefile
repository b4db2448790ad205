# Two commands do everything on a fresh machine with Python 3.11 or newer and git: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export NO_ALBUMENTATIONS_UPDATE := 1
.PHONY: help demo test soak run results bench live docs colab check clean owner
.DEFAULT_GOAL := help

help:   ## show this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: [^#]*## /\t/' | expand -t 10

.venv/.user: settings.ini setup.py
	@echo "[1/2] making .venv and installing cifar_cam (PyTorch is a large download: a minute or more)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.dev: settings.ini setup.py
	@echo "[1/2] making .venv and installing cifar_cam with its tools for development (a minute or more)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch .venv/.user $@

demo: .venv/.user   ## accuracy, 20 mistakes and their Grad-CAM on the embedded sample, as one HTML report
	@echo "[2/2] cifar_cam_demo"
	@$(BIN)/cifar_cam_demo

# tests/conftest.py says which tests stay in one process
test: .venv/.dev   ## every notebook's cells and every test, on all cores
	@echo "[2/2] pytest: notebooks and tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope

soak: .venv/.dev   ## runs killed, stopped, changed and damaged at random, for MINUTES=60; must lose nothing
	@$(BIN)/python tools/soak.py --minutes $(or $(MINUTES),60)

run: .venv/.dev   ## run one notebook afresh and keep its outputs: make run NB=05
	@test -n "$(NB)" || { echo "say which notebook: make run NB=05"; exit 2; }
	@$(BIN)/python tools/run_notebook.py $(NB) $(FLAGS)

results: .venv/.user   ## train every recipe that has no card in results/ yet, cheapest first; a second call goes on
	@echo "[2/2] variables: DEVICE=cuda, SEEDS=\"42 43\", ONLY=freeze-10"
	@$(BIN)/python tools/results.py --device "$(or $(DEVICE),auto)" --seeds "$(or $(SEEDS),42)" --only "$(ONLY)"

bench: .venv/.dev   ## measure speed against the usual alternatives; what it prints is kept in results/
	@set -e -o pipefail; for b in benchmarks/bench_*.py; do n=results/$$(basename $$b .py).md; echo "== $$b"; \
		{ $(BIN)/python $$b | tee $$n.part && mv $$n.part $$n; } || { rm -f $$n.part; exit 1; }; done

live: .venv/.dev   ## the page with the network in the browser, into nbs/live
	@echo "[2/2] tools/make_live.py"
	@$(BIN)/python tools/make_live.py

docs: .venv/.dev   ## build the site into _docs (needs Quarto); everything else stays as it is
	@command -v quarto >/dev/null || { echo "Quarto is not on the PATH: install it from quarto.org, then run make docs again"; exit 2; }
	@$(BIN)/python tools/make_live.py
	@$(BIN)/python tools/build_docs.py && $(BIN)/python tools/finish_site.py

colab: .venv/.dev   ## every notebook as in Colab: its versions, the built wheel, another folder, all cells (a large download)
	@$(BIN)/python tools/colab.py

check: .venv/.dev   ## export, clean, hash and lint; fails if that changes a file, whether the rest is committed or not
	@before=$$(git diff | git hash-object --stdin); \
	$(BIN)/nbdev_export && $(BIN)/nbdev_clean && $(BIN)/python tools/make_readme.py && $(BIN)/python tools/data_hashes.py && $(BIN)/ruff check cifar_cam tests tools benchmarks || exit 1; \
	test "$$before" = "$$(git diff | git hash-object --stdin)" || { git diff --stat; echo "exporting and cleaning changed files (see above): look at them and commit"; exit 1; }

owner: .venv/.dev   ## write the owner named in settings.ini into badges, install cells and links
	@$(BIN)/python tools/set_owner.py && $(BIN)/python tools/make_readme.py

clean:  ## remove what the commands above made
	rm -rf .venv _proc _docs build dist *.egg-info runs nbs/runs nbs/live
