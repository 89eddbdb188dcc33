# Front door. Every target stops at the first error and says how long make has been at it.
#     make book     run the notebooks at quick scale and read the result
#     make help     all targets

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/environment
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
SIDE_BY_SIDE := --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 10
START := $(shell date +%s)
DONE = @echo "$@: done after $$(( $$(date +%s) - $(START) )) s"

ifneq ($(wildcard ../shared/data),)
export NEGDISTILL_DATA ?= $(abspath ../shared/data)
endif

.NOTPARALLEL:
.PHONY: help env book real html test lint clean

help:
	@echo "make env     install the package and everything in constraints.txt into .venv"
	@echo "make book    env, run all notebooks at quick scale, render them in _build/quick/html"
	@echo "make real    env, run the chapter of the real student on the paper's data: a night, then it goes on"
	@echo "make html    env, render the committed results in _build/html"
	@echo "make test    env, lint, run the tests, compare committed notebooks with a fresh run"
	@echo "make lint    env, check the style of code and notebooks"
	@echo "make clean   remove what was built and run; .venv stays"

# The stamp names what .venv was made from and where, and is written last. Equal: nothing to do. Different: install
# what changed. No stamp: the installation was interrupted, or is not ours, and is made again from nothing.
env:
	@made="$$(cat pyproject.toml constraints.txt | cksum) $(CURDIR)"; \
	if [ "$$(cat $(STAMP) 2>/dev/null)" = "$$made" ]; then exit 0; fi; \
	set -e; echo "env: installing into .venv, minutes the first time"; \
	if [ ! -f $(STAMP) ]; then $(PYTHON) -m venv --clear .venv; fi; \
	rm -f $(STAMP); \
	if command -v uv > /dev/null; then pip="uv pip"; into="--python $(PY)"; else pip="$(PY) -m pip"; into=; fi; \
	$$pip install $$into --quiet --constraint constraints.txt --editable '.[all]'; \
	$$pip check $$into; \
	echo "$$made" > $(STAMP)
	$(DONE)

book: env
	$(PY) -m negdistill run --profile quick
	$(PY) -m negdistill render --profile quick
	$(DONE)

real: env
	$(PY) -m negdistill student get smollm2-135m
	test -n "$$NEGDISTILL_DATA" || $(PY) -m negdistill data get
	$(PY) -m negdistill run --profile real --only 11
	@echo "open _build/real/executed/11_real_student.ipynb with Jupyter"
	$(DONE)

html: env
	$(PY) -m negdistill render
	$(DONE)

test: lint
	$(ONE_THREAD) CUDA_VISIBLE_DEVICES= $(PY) -m pytest $(SIDE_BY_SIDE) --nbval tests notebooks
	$(DONE)

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(DONE)

clean:
	rm -rf _build _runs .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	$(DONE)
