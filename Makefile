# The commands that people type. Set-up is part of each; it costs nothing while pyproject.toml and constraints.txt
# stay as they are.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test soak demo check bench clean

repro: .venv/installed  ## Run the pipeline: download, stats, normalize, report
	.venv/bin/dvc repro

test: .venv/installed-test  ## Run the tests, without network
	.venv/bin/pytest

soak: .venv/installed-test  ## Make thousands of faults, from a SEED, and print what came of them
	.venv/bin/python -m tests.soak $(SEED)

# A copy of its own, so that the workspace's params, lock and data stay as they are.
demo: .venv/installed  ## Run the pipeline on generated data, without network, in build/demo
	@rm -rf build/demo
	@mkdir -p build/demo
	@cp -R dvc.yaml .dvcignore pipeline build/demo
	@sed 's/^dataset: .*/dataset: synthetic/' params.yaml > build/demo/params.yaml
	@cd build/demo && dvc init --quiet --no-scm && cp ../../.dvc/config .dvc/config.local && dvc repro
	@echo "See build/demo/data/report/report.html"

check: .venv/installed-check  ## Check format, lint and types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/mypy --platform win32

# FFCV is built from source, with OpenCV and libturbojpeg; datasets needs another huggingface_hub than MDS does. Either
# may be missing: the results say so.
bench: .venv/installed-bench  ## Measure the stages beside their limits and their alternatives
	-.venv/bin/python -m pip install --quiet --constraint constraints.txt "ffcv>=1.0"
	-.venv/bin/python -m pip install --quiet --no-deps --target build/bench/huggingface --upgrade \
	  "datasets>=5" "huggingface_hub>=1" anyio "dill<0.4" h11 httpcore httpcore2 httpx httpx2 multiprocess pandas pyarrow \
	  truststore xxhash
	HUGGINGFACE_DIR=$(CURDIR)/build/bench/huggingface .venv/bin/python -m benchmarks.run

clean:  ## Remove what the commands above made, but not data/
	rm -rf .venv build

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and \
	  "Python 3.11.4 or later is needed: make PYTHON=python3.12, or where you have one")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-%: .venv/installed
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@
