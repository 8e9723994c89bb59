# Two commands on a fresh machine: `make demo` and `make test`. Each makes the environment it needs.

PYTHON ?= python3
VENV   := .venv
PIP    := $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
STAMP  := $(VENV)/.ready-$(shell cksum pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
PEERS  := spikingjelly==2.0.0 snntorch==1.0.0 rnnbuilder==0.1.1 norse==1.1.0 nir==1.0.8 nirtorch==2.6
PEERS_NEED := loguru h5py matplotlib scipy tqdm packaging requests SciencePlots

# a process per core, and one thread in each: two that share a loop wait for each other whenever a third one runs
PYTEST := OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n auto --maxprocesses 8 --dist worksteal
WHEEL  := $(VENV)/wheel

.PHONY: demo test lint types installed wheel unit interpreter docs docs-serve mutants test-peers peers bench gpu clean

demo: $(STAMP)
	$(VENV)/bin/python -m flexsn demo

# side by side: what has one process, and the end of one stage, leave no processor idle; each says what it has to say at once
test: $(STAMP)
	$(MAKE) -j3 --output-sync=target lint types wheel unit interpreter docs

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# the built wheel; without what earlier builds left, from which setuptools would ship what is long gone or not listed
installed: $(STAMP)
	rm -rf build *.egg-info $(WHEEL) && $(PIP) --no-deps --target $(WHEEL) .

# an editable install hides the package map from mypy, so it reads the wheel
types: installed
	cd $(WHEEL) && MYPYPATH=. ../bin/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p flexsn

# -S: what is installed here but for the editable install, which a .pth file brings
wheel: installed
	cd $(WHEEL) && PYTHONPATH=$(wildcard $(CURDIR)/$(VENV)/lib/python3*/site-packages) ../bin/python -S -m pytest \
		-o pythonpath= -o addopts=-q $(CURDIR)/tests/wheel $(CURDIR)/tests/test_tiny.py $(wildcard $(CURDIR)/tests/*/test_errors.py)

unit: $(STAMP)
	$(PYTEST) tests

# Triton reads TRITON_INTERPRET once, so its interpreter needs a process of its own.
# Every test that names its backend runs here.
interpreter: $(STAMP)
	TRITON_INTERPRET=1 $(PYTEST) tests -k "triton or property or test_ops"

# the site, docs/_build/index.html; what Sphinx warns of is an error
docs: $(STAMP)
	$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs docs/_build

docs-serve: docs
	$(VENV)/bin/python -m http.server --bind 127.0.0.1 --directory docs/_build $(or $(PORT),8000)

# faults planted on purpose, to see whether the tests notice: make mutants ROOM=planning SAMPLE=40 SEED=1
mutants: $(STAMP)
	FLEXSN_CACHE_DIR=$(CURDIR)/$(VENV)/mutants $(VENV)/bin/python tests/mutation/mutants.py \
		--room $(or $(ROOM),planning) --sample $(or $(SAMPLE),40) --seed $(or $(SEED),1)

# an environment of its own: `make test` shall not depend on whether the peers were ever installed
test-peers:
	$(MAKE) VENV=.venv-peers peers

peers: $(STAMP)
	$(PIP) --no-deps $(PEERS)
	$(PIP) $(PEERS_NEED)
	$(VENV)/bin/pytest tests/peers

bench: $(STAMP)
	$(VENV)/bin/python bench/cpu.py
	$(VENV)/bin/python bench/lengths.py
	$(VENV)/bin/python bench/recurrent.py
	$(VENV)/bin/python bench/over_time.py
	$(VENV)/bin/python bench/startup.py

# for whoever has a card: tests, benchmark, a page of results to paste, in ten minutes; 2 where there is none
gpu: $(STAMP)
	$(VENV)/bin/python bench/gpu_report.py --minutes $(or $(MINUTES),10)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip "setuptools>=77" wheel
	$(PIP) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PIP) --editable ".[dev]"
	rm -f $(VENV)/.ready-* && touch $@

clean:
	rm -rf .venv .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo.png docs/_build docs/made
