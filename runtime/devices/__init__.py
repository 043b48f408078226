"""Stand-ins for the phone: they run artifacts as a phone does, without a phone.

arm64   the phone's instruction set: aarch64 builds of onnxruntime and LiteRT, on a phone's core, emulated by qemu-user
gpu     the phone's GPU delegate: LiteRT's GPU accelerator (ML Drift), on a Vulkan device in software (SwiftShader)

Each runs its graphs in a child process (`child`), which loads them with the runners that users get (`worker`). tools/
installs both from the package registries, into a folder that the user chooses.
"""
