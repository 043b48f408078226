"""Write the zip of an APK. Android maps libraries and stored assets from it, so their data begin at multiples of a
page. The same entries give the same bytes: no times, no system, a fixed order."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

PAGE = 16384  # bytes of a memory page on newer phones; libraries are aligned to it
WORD = 4  # bytes; all other stored entries are aligned to it, as zipalign does
ALIGNMENT_FIELD = 0xD935  # id of Android's extra field for alignment: the alignment in two bytes, then zeros


@dataclass(frozen=True)
class Entry:
    """A file of the APK. `stored`: not deflated."""

    name: str
    data: bytes
    stored: bool

    @property
    def alignment(self) -> int:
        """Return the alignment of the entry's data in bytes; 1 if it is deflated."""
        if not self.stored:
            return 1
        return PAGE if self.name.endswith(".so") else WORD


def write_archive(path: Path, entries: Iterable[Entry]) -> None:
    """Write the entries in their order. Raises ValueError if a name occurs twice."""
    seen = set()
    with ZipFile(path, "w") as archive:
        for entry in entries:
            if entry.name in seen:
                raise ValueError(f"the APK has two entries {entry.name}")
            seen.add(entry.name)
            info = ZipInfo(entry.name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 0  # the system on which the zip was made: 3 would be Unix
            info.compress_type = ZIP_STORED if entry.stored else ZIP_DEFLATED
            if entry.stored:
                assert archive.fp is not None
                begin = archive.fp.tell() + 30 + len(entry.name.encode()) + 6
                zeros = bytes(-begin % entry.alignment)
                field = entry.alignment.to_bytes(2, "little") + zeros
                info.extra = ALIGNMENT_FIELD.to_bytes(2, "little") + len(field).to_bytes(2, "little") + field
            archive.writestr(info, entry.data)


def data_offset(path: Path, name: str) -> int:
    """Return the byte offset at which an entry's data begin."""
    with ZipFile(path) as archive, path.open("rb") as raw:
        header = archive.getinfo(name).header_offset
        raw.seek(header + 26)
        sizes = raw.read(4)
        return header + 30 + int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little")
