# make run: everything on the built-in data. make test: the tests. Both make .venv first and need only Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint check replay bench readme strip notebooks reports page cards lock browser clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

$(BIN)/.runtime: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(BIN)/.dev: requirements-dev.txt $(BIN)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

run: $(BIN)/.runtime ## train on the built-in data, or go on where it stopped (N="2 6": those; 6 is the final project; AGAIN=1: anew)
	@$(BIN)/python -m tools.run_all $(N) $(if $(AGAIN),--again)

test: $(BIN)/.dev ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(BIN)/.dev ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy common assignment1 assignment2 assignment3 assignment4 assignment5 final_project tools

check: $(BIN)/.dev ## the slow tests: every command of the READMEs in smoke, twenty kills of every training (about an hour)
	$(BIN)/python -m pytest -m slow

replay: $(BIN)/.dev ## train the beginning of the committed runs again, score their models again, and compare (real data, half an hour)
	$(BIN)/python -m tools.replay

bench: $(BIN)/.dev ## measure against peers and the hardware floor, and write the table in the README again
	@for script in $(filter-out benchmarks/table.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit $$?; done
	$(BIN)/python benchmarks/table.py

readme: $(BIN)/.runtime ## make the tables in the README files and in docs/ again from metrics.json
	$(BIN)/python -m tools.readme

strip: $(BIN)/.runtime ## draw the three pictures at the top of the README again
	$(BIN)/python -m tools.strip

notebooks: $(BIN)/.dev ## execute the notebooks again, in place (a few minutes)
	$(BIN)/python -m tools.notebooks

reports: $(BIN)/.runtime ## compile report.pdf of the committed real-data runs
	$(BIN)/python -m tools.report

page: $(BIN)/.dev ## build docs/index.html from the committed runs
	$(BIN)/python -m tools.page

cards: $(BIN)/.dev ## write the model cards, MODEL.md, of the committed runs
	$(BIN)/python -m tools.cards

lock: $(BIN)/.runtime ## pin every package of run and test, with sha256, in requirements.lock (uv resolves; needs the network)
	$(BIN)/python -m tools.lock

browser: ## install Chromium from Debian's packages, for the page's test
	apt-get update && apt-get install -y chromium

clean: ## remove the environment and the runs on built-in data
	rm -rf $(VENV) *.egg-info assignment*/results/synthetic-* assignment*/results/simulated-* final_project/results/simulated-*
