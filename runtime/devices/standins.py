"""The names of the stand-ins, and the required versions of their packages, which tools/ installs.

The wheels have the versions of constraints.txt, for aarch64 (tests/test_tools_install.py).
"""

NAMES = ("arm64", "gpu")
PYTHON = "3.13"  # the interpreter of the stand-in arm64; the wheels are for it
# By stand-in, the packages of registries that keep every version. Debian's are not here: it keeps only the newest.
VERSIONS = {
    "arm64": {
        "ai-edge-litert": "2.3.0",
        "flatbuffers": "25.12.19",
        "ml_dtypes": "0.6.0",
        "numpy": "2.4.6",
        "onnxruntime": "1.32.0",
        "packaging": "26.3",
        "protobuf": "7.36.2",
        "tqdm": "4.70.1",
        "typing_extensions": "4.16.0",
    },
    "gpu": {
        "@sparticuz/chromium": "147.0.0",
    },
}
