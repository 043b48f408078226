# Each target sets up .venv by itself; .venv/.ready is remade when the requirements change.
PYTHON ?= python3
BIN = .venv/bin
# Two test files at once: a thread each for OpenMP, whose threads would wait for each other by spinning.
PARALLEL = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

# For editors and type checkers, which do not know setuptools' package-dir; nothing needs them to run.
LINKS = pocketdiffusion/export pocketdiffusion/quantize pocketdiffusion/runtime

# What the Android app comes with.
IN_APK = build/emoji-galaxy-s24 build/emoji-pixel-8

.PHONY: demo pixel test test-all check clean apk test-apk

demo: .venv/.ready
	$(BIN)/python -m pocketdiffusion.demo build

pixel: .venv/.ready
	$(BIN)/python -m pocketdiffusion.demo build pixel-8

test: .venv/.ready
	$(PARALLEL) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/.ready
	$(PARALLEL) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "slow or not slow" --durations 10

check: .venv/.ready $(LINKS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# PACK=--compiled where Maven has just compiled the app.
apk: .venv/.ready $(IN_APK)
	$(BIN)/python -m android_demo.pack $(PACK) -o build/pocket-diffusion.apk $(IN_APK)

test-apk: apk
	$(PARALLEL) $(BIN)/python -m pytest -q android_demo/test_apk.py

build/emoji-%: | .venv/.ready
	$(BIN)/python -m pocketdiffusion export --target $* -o $@

clean:
	rm -rf .venv build dist *.egg-info $(LINKS)

$(LINKS):
	ln -sfn ../$(@F) $@

# The links come after the installation: where setuptools sees one, it leaves its room out of what it maps.
.venv/.ready: pyproject.toml constraints.txt requirements-tflite.txt
	rm -f $(LINKS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[export,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-tflite.txt
	$(MAKE) $(LINKS)
	touch $@
