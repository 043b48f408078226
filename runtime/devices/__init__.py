"""Stand-ins for the phone: what runs an artifact as nearly as on a phone as this side of a cable gets.

arm64   the phone's instruction set: aarch64 builds of onnxruntime and LiteRT, on a phone's core, emulated by qemu-user
gpu     the phone's GPU delegate: LiteRT's GPU accelerator (ML Drift), on a Vulkan device in software (SwiftShader)

Each runs its graphs in a child process (`child`), which loads them by the runners that users get (`worker`). tools/
puts both together from the package registries, into a folder that the user chooses.
"""
