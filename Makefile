# The project's commands. All except help and clean first set up .venv, which takes no time while pyproject.toml and
# constraints.txt are unchanged.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# A .venv is made again if its creation was interrupted, if its Python was removed, or if it was moved: its scripts, such
# as pip, name their interpreter by its full path, after one of these three prefixes. One that uv made may lack pip, but
# its activate names the folder.
MADE_BY_UV := grep -qs '^uv = ' .venv/pyvenv.cfg
NEW_VENV := $(shell venv="$$(pwd -P)/.venv"; test -x .venv/bin/python && test -e .venv/bin/activate && { \
  grep -qsF -e "!$$venv/bin/python" -e "'exec' $$venv/bin/python" -e "'exec' \"$$venv/bin/python" .venv/bin/pip || \
  { $(MADE_BY_UV) && grep -qF "'$$venv'" .venv/bin/activate; }; } || echo new-venv)
PIP = $(shell $(MADE_BY_UV) && echo UV_PYTHON=.venv uv pip || echo .venv/bin/python -m pip)

PROSE := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md $(wildcard docs/*.md docs/*/*.md examples/*/README.md)

.PHONY: help repro demo test test-fast soak check ci from-scratch bench clean new-venv

help:  ## List these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

repro: .venv/installed  ## Run the pipeline
	@test -e .git || git rev-parse 2>/dev/null || test "$$(dvc config core.no_scm 2>/dev/null)" = true || { \
	  echo "This is not a git repository. To use DVC without git: .venv/bin/dvc config --local core.no_scm true" >&2; exit 1; }
	@.venv/bin/dvc repro || { test -n "$$VIRTUAL_ENV" || \
	  echo "To run dvc yourself, first run: source .venv/bin/activate" >&2; exit 1; }

# Runs in a separate folder so that params.yaml, dvc.lock and data/ stay unchanged.
demo: .venv/installed  ## Run the pipeline on generated data in build/demo, without network access
	@rm -rf build/demo
	@mkdir -p build/demo/data
	@cp data/not_duplicates.csv build/demo/data
	@cp -R dvc.yaml .dvcignore pipeline shardset build/demo
	@sed 's/^dataset: .*/dataset: synthetic/' params.yaml > build/demo/params.yaml
	@cd build/demo && dvc init --quiet --no-scm && cp ../../.dvc/config .dvc/config.local && cp -R ../../.dvc/plots .dvc && \
	  dvc repro
	@echo "See build/demo/data/report/report.html"

test: .venv/installed-test  ## Run all tests, without network access
	.venv/bin/pytest

test-fast: .venv/installed-test  ## Run the fast tests that need no browser
	.venv/bin/pytest -m "not slow and not browser" --hypothesis-profile=fast

soak: .venv/installed-test  ## Inject thousands of faults, generated from SEED, and print the outcomes
	.venv/bin/python -m tests.soak $(SEED)

check: .venv/installed-check  ## Check formatting, lint, types, prose, GitHub's files and the docs site
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/mypy --platform win32
	.venv/bin/codespell $(PROSE) Makefile dvc.yaml params.yaml benchmarks examples pipeline shardset tests
	.venv/bin/proselint check --config .proselintrc.json $(PROSE)
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

# The demo must not change any file in git.
ci:  ## Run everything that a change has to pass
	$(MAKE) --no-print-directory check
	before=$$(git status --porcelain) && $(MAKE) --no-print-directory demo && test "$$before" = "$$(git status --porcelain)"
	$(MAKE) --no-print-directory from-scratch
	$(MAKE) --no-print-directory test

# Tests the last commit, not the working tree: it runs in a fresh clone.
from-scratch: .venv/installed  ## Check that a run from scratch reproduces the lock, statistics and report in git
	@if test -z "$$PIPELINE_SOURCE"; then echo "from-scratch: skipped, because PIPELINE_SOURCE is not set"; exit 0; fi; \
	if test -e "$$PIPELINE_SOURCE"; then export PIPELINE_SOURCE="$$(realpath "$$PIPELINE_SOURCE")"; fi; \
	set -ex; \
	rm -rf build/from-scratch; \
	git clone --quiet . build/from-scratch; \
	cd build/from-scratch; \
	rm -r dvc.lock data; \
	git checkout --quiet -- data/not_duplicates.csv; \
	dvc repro; \
	git status --short; \
	test -z "$$(git status --porcelain)"; \
	second_run=$$(dvc repro); \
	echo "$$second_run"; \
	case "$$second_run" in *"Running stage"*) echo "The second run ran a stage again" >&2; exit 1;; esac; \
	cd ../..; \
	rm -rf build/from-scratch

# FFCV is built from source and needs OpenCV and libturbojpeg. datasets is installed separately, with a newer
# huggingface_hub than the pinned one. Both are optional: the results say which one is missing. BENCH_IMAGES may name a folder
# of JPEGs in train/CLASS, val/CLASS and test/CLASS, which are decoded instead of generated ones. BENCH_GROWTH may name
# numbers of images, such as "10000 30000 100000", to also measure how the stages grow; these take an hour and a half.
bench: .venv/installed-bench  ## Measure the stages against their lower bounds and against alternatives
	-$(PIP) install --constraint constraints.txt "ffcv>=1.0"
	-$(PIP) install --no-deps --target build/bench/huggingface --upgrade \
	  "datasets>=5" "huggingface_hub>=1" anyio "dill<0.4" h11 httpcore httpcore2 httpx httpx2 multiprocess pandas pyarrow \
	  truststore xxhash
	HUGGINGFACE_DIR="$$PWD/build/bench/huggingface" .venv/bin/python -m benchmarks.run
	test -z "$$BENCH_GROWTH" || .venv/bin/python -m benchmarks.growth $$BENCH_GROWTH

clean:  ## Remove .venv and build/, but not data/
	rm -rf .venv build

new-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and \
	  "Python 3.11.4 or later is required. If you have one under another name: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv

.venv/installed: pyproject.toml constraints.txt $(NEW_VENV)
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

.venv/installed-%: .venv/installed
	$(PIP) install --constraint constraints.txt --editable '.[$*]'
	touch $@
