"""The zip that an APK is. Android maps libraries and stored assets straight from it, so their data begin at multiples
of a page. The same entries give the same bytes: no time, no system, a fixed order."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

PAGE = 16384  # of phones whose memory pages have 16 KB
WORD = 4  # of all other stored entries, as zipalign does
ALIGNMENT_FIELD = 0xD935  # an extra field that Android's tools know: the alignment in two bytes, then zeros


@dataclass(frozen=True)
class Entry:
    """A file of the APK: `stored` as it is, or deflated."""

    name: str
    data: bytes
    stored: bool

    @property
    def alignment(self) -> int:
        """The number of bytes of which its data begin at a multiple; 1 for those that are deflated."""
        if not self.stored:
            return 1
        return PAGE if self.name.endswith(".so") else WORD


def write_archive(path: Path, entries: Iterable[Entry]) -> None:
    """Write the entries in their order. Raises ValueError where a name comes twice."""
    seen = set()
    with ZipFile(path, "w") as archive:
        for entry in entries:
            if entry.name in seen:
                raise ValueError(f"{entry.name} comes twice")
            seen.add(entry.name)
            info = ZipInfo(entry.name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 0  # of which system a zip was made: 3 would be Unix
            info.compress_type = ZIP_STORED if entry.stored else ZIP_DEFLATED
            if entry.stored:
                assert archive.fp is not None
                begin = archive.fp.tell() + 30 + len(entry.name.encode()) + 6
                zeros = bytes(-begin % entry.alignment)
                field = entry.alignment.to_bytes(2, "little") + zeros
                info.extra = ALIGNMENT_FIELD.to_bytes(2, "little") + len(field).to_bytes(2, "little") + field
            archive.writestr(info, entry.data)


def data_offset(path: Path, name: str) -> int:
    """Return the byte of the file at which an entry's data begin."""
    with ZipFile(path) as archive, path.open("rb") as raw:
        header = archive.getinfo(name).header_offset
        raw.seek(header + 26)
        sizes = raw.read(4)
        return header + 30 + int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little")
