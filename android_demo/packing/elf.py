"""Read the headers of an ELF file: its processor, and the alignment of its load segments."""

import struct
from dataclasses import dataclass

AARCH64 = 183  # e_machine
LOAD = 1  # p_type


@dataclass(frozen=True)
class Elf:
    """`machine` is the file's e_machine, `segment` the least alignment of its load segments in bytes."""

    machine: int
    segment: int


def read_elf(raw: bytes) -> Elf:
    """Read the headers of a 64-bit little-endian ELF file (System V ABI). Raises ValueError if it is not one."""
    if raw[:6] != b"\x7fELF\x02\x01" or len(raw) < 64:
        raise ValueError("it is not a 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", raw, 18)
    (table,) = struct.unpack_from("<Q", raw, 32)
    size, count = struct.unpack_from("<HH", raw, 54)
    alignments = []
    for header in range(table, table + count * size, size):
        (kind,) = struct.unpack_from("<I", raw, header)
        if kind == LOAD:
            alignments.append(struct.unpack_from("<Q", raw, header + 48)[0])
    if not alignments:
        raise ValueError("it has no load segment")
    return Elf(machine, min(alignments))
