# Each target sets up .venv by itself; .venv/.ready is remade when the requirements change.
PYTHON ?= python3
BIN = .venv/bin
# Two test files at once: a thread each for OpenMP, whose threads would wait for each other by spinning.
PARALLEL = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

# For editors and type checkers, which do not know setuptools' package-dir; nothing needs them to run.
LINKS = pocketdiffusion/export pocketdiffusion/quantize pocketdiffusion/runtime pocketdiffusion/tools

# What the Android engine is tested with; CI makes them two at once. Whoever changed what they are made of: make clean.
ANDROID_BUNDLES = build/emoji-fp32-std build/emoji-split build/emoji-tiled build/emoji-pixel-8 \
	build/emoji-pixel-8-w8a8 build/emoji-galaxy-s24 build/emoji-galaxy-s24-dynamic8
# Those that the Android app comes with.
PACKED_BUNDLES = build/emoji-galaxy-s24 build/emoji-pixel-8

# What the Swift engine is tested with.
SWIFT_BUNDLES = build/emoji-fp32-std build/emoji-split build/emoji-tiled build/emoji-iphone-15

.PHONY: demo pixel test test-all test-full-export test-android apk test-apk test-swift check clean

demo: .venv/.ready
	$(BIN)/python -m pocketdiffusion.demo build

pixel: .venv/.ready
	$(BIN)/python -m pocketdiffusion.demo build pixel-8

# LEAVE_OUT: tests that were run before. SHARE=K/N: slow tests of every N-th file only, from number K on. UNTIL, in seconds
# since 1970: no slow test begins later.
PYTEST = $(PARALLEL) $(BIN)/python -m pytest -q -rs -n 2 --dist loadfile --no-loadscope-reorder --durations 10 \
	$(addprefix --kit=,$(wildcard build/kit)) $(addprefix --tensorflow=,$(wildcard build/tensorflow)) \
	$(addprefix --deselect=,$(LEAVE_OUT))

test: .venv/.ready
	$(PYTEST)

test-all: .venv/.ready
	$(PYTEST) -m "not outside_ci" $(addprefix --share=,$(SHARE)) $(addprefix --until=,$(UNTIL))

# Memory of Stable Diffusion 1.5 in full size: writing ONNX within 1.2 GB, a quick export within 5 GB.
# 12 to 45 minutes.
test-full-export: .venv/.ready
	$(BIN)/python -m pytest -q -s -m outside_ci tests/test_full_size_memory.py

# The Android demo, with a JDK and Maven, which fetches the rest: engine and app, then the APK.
test-android: .venv/.ready build/kit $(ANDROID_BUNDLES)
	android_demo/install_tools.sh
	$(BIN)/python android_demo/run_tests.py --required --kit build/kit $(ANDROID_BUNDLES)
	$(MAKE) test-apk PACK=--compiled

# The Swift engine, with the Swift that is on PATH or else Debian's, unpacked into the user's cache.
test-swift: .venv/.ready build/kit $(SWIFT_BUNDLES)
	ios_demo/tools/swift_setup
	$(BIN)/python ios_demo/run_tests.py --required --kit build/kit $(SWIFT_BUNDLES)

build/kit: | .venv/.ready
	mkdir -p build
	$(BIN)/pocketdiffusion reader-kit $@

# The Android app's engine for TFLite, for benchmarks/tflite_on_android.py and the tests.
build/tensorflow: tests/tensorflow.txt
	$(PYTHON) -m venv --clear $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

build/emoji-pixel-8: OPTIONS = --target pixel-8
build/emoji-pixel-8-w8a8: OPTIONS = --target pixel-8 --recipe w8a8
build/emoji-galaxy-s24: OPTIONS = --target galaxy-s24
build/emoji-galaxy-s24-dynamic8: OPTIONS = --target galaxy-s24 --recipe dynamic8
build/emoji-fp32-std: OPTIONS = --target pixel-8 --recipe fp32 --profile std
build/emoji-split: OPTIONS = --target pixel-8 --recipe fp32 --profile std --split-unet 3 --proof quick
build/emoji-tiled: OPTIONS = --target pixel-8 --recipe fp32 --profile std --vae-tiles blended --proof quick
build/emoji-iphone-15: OPTIONS = --target iphone-15
$(sort $(ANDROID_BUNDLES) $(SWIFT_BUNDLES)): | .venv/.ready
	$(BIN)/pocketdiffusion export $(OPTIONS) -o $@

# The Android app. PACK=--compiled where test-android has just compiled it.
apk: .venv/.ready $(PACKED_BUNDLES)
	android_demo/install_tools.sh
	$(BIN)/python -m android_demo.pack $(PACK) -o build/pocket-diffusion.apk $(PACKED_BUNDLES)

test-apk: apk
	$(PARALLEL) $(BIN)/python -m pytest -q android_demo/test_apk.py

check: .venv/.ready $(LINKS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

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
