# `make demo` and `make test` need Python 3.11 or later, git and make; what else is missing they install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint system clean

demo: $(STAMP) system
	$(BIN)/autograder demo

test: $(STAMP) system lint
	$(BIN)/autograder build --check
	$(BIN)/pytest -n 2 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

system: $(STAMP)
	@sh tools/install_system_packages.sh bwrap:bubblewrap chromium:chromium

# The stamp is made last, so an interrupted installation is begun again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || sh tools/install_system_packages.sh --venv $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[staff,test]'
	touch $(STAMP)

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache
