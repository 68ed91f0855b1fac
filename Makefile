# What CI runs, by the same names. Each line of a recipe stands by itself, so that
# .ci/run can also run it on a machine without make.

PYTHON ?= python
export MPLBACKEND = Agg

.PHONY: check lint types test rounding examples docs dist clean setup

check: lint types test rounding docs

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

test:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist worksteal --cov=mtsk --cov-report=term:skip-covered

rounding:
	$(PYTHON) tests/as_other_processors.py

examples:
	$(PYTHON) examples/quickstart.py --scenes 24 --output outputs

docs:
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/_build/html
	$(PYTHON) -m sphinx -W --keep-going -b doctest -d docs/_build/html/.doctrees docs docs/_build/doctest

dist:
	bash tools/dist.sh $(PYTHON)

clean:
	rm -rf docs/_build docs/api docs/auto_examples outputs build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

setup:
	python3 -m venv .venv
	.venv/bin/python -m pip install -e ".[test,docs]"
