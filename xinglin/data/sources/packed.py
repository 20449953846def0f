"""Compressed files, opened with limits: gzip as a stream of bytes, zip members one at a time.

    open_bytes(path)    the bytes of a file, unpacked when they are gzip
    open_zip(path)      a zip (xlsx, docx) whose entries were all checked
    check_tar(path)     the entries of a tar, checked for names that leave the folder

Nothing is unpacked to disk. deflate packs at most 1032 to 1 and text about 10 to 1, so a file that grows beyond 200
to 1 is taken for a bomb. The sizes that a zip declares can be believed: the standard library stops reading at them.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from xinglin.records import InputError

GZIP = b"\x1f\x8b"
MAX_RATIO = 200
FREE = 64 * 2**20  # bytes that may be unpacked whatever the ratio
MAX_UNPACKED = 8 * 2**30
MAX_MEMBER = 128 * 2**20  # of a zip member that is held in memory
MAX_TEXT = 32 * 2**20  # of one text inside XML
MAX_ENTRIES = 100_000
CHUNK = 2**20


class _Gunzip(gzip.GzipFile):
    """gzip whose faults are the user's, with the file's name, and which stops at a bomb."""

    def read(self, size: int | None = -1) -> bytes:
        return self._read(super().read, size)

    def read1(self, size: int = -1) -> bytes:
        return self._read(super().read1, size)

    def _read(self, read, size) -> bytes:  # type: ignore[no-untyped-def]
        path = Path(str(self.name))
        try:
            data = read(size)
        except EOFError:
            raise InputError(f"{path}: file ends inside a record; the gzip was cut: fetch it again") from None
        except (gzip.BadGzipFile, zlib.error):
            raise InputError(f"{path}: the gzip is damaged (its checksum is wrong); fetch it again") from None
        if self.tell() > max(FREE, MAX_RATIO * path.stat().st_size):
            raise InputError(_bomb(path, path.stat().st_size))
        return data


def _bomb(path: Path, packed: int) -> str:
    return (
        f"{path}: {packed} bytes unpack to over {MAX_RATIO} times as much; the size limit for compressed files stops "
        "here: unpack it yourself if it can be trusted"
    )


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked when they start as gzip does. Its reads raise `InputError` for cut or damaged gzip."""
    file = path.open("rb")
    packed = file.read(2) == GZIP
    file.seek(0)
    if not packed:
        return file
    file.close()
    return cast(BinaryIO, _Gunzip(path, "rb"))


# --- zip -----------------------------------------------------------------------------------------------------------


def open_zip(path: Path) -> zipfile.ZipFile:
    """An opened zip, every entry of which has a plain name and a sane size. Raises `InputError` naming the entry."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise InputError(f"{path}: the zip container is cut or damaged; fetch it again") from None
    try:
        _check_entries(path, archive)
    except InputError:
        archive.close()
        raise
    return archive


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{path}: {len(entries)} entries; allowed are {MAX_ENTRIES}")
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"{path}: entry {entry.orig_filename!r} is a link; archives with links are refused")
        check_name(path, entry.orig_filename)
        if entry.flag_bits & 1:
            raise InputError(f"{path}: protected by a password; save it without one")
    total = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    if total > MAX_UNPACKED or total > max(FREE, MAX_RATIO * size):
        raise InputError(_bomb(path, size))


def check_name(path: Path, name: str) -> None:
    """Refuse an entry whose name leaves the folder or is no name at all."""
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise InputError(f"{path}: entry {name!r} leaves the folder; do not unpack this archive")
    if not name.isprintable():
        raise InputError(f"{path}: entry {name!r} has a line break or control character in its name; refused")


def check_tar(path: Path) -> None:
    """Read a tar's headers, plain or gzipped. Raises `InputError` that names the first unsafe entry."""
    with open_bytes(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for entry in archive:
                    if not (entry.isfile() or entry.isdir()):
                        raise InputError(f"{path}: entry {entry.name!r} is a link or device; such archives are refused")
                    check_name(path, entry.name)
        except tarfile.TarError:
            raise InputError(f"{path}: the tar is cut or damaged; fetch it again") from None


# --- XML inside a zip ------------------------------------------------------------------------------------------------


def check_xml(path: Path, archive: zipfile.ZipFile, name: str, limit: int = MAX_MEMBER) -> None:
    """Before a parser sees a member: no document type (and so no entities), no endless text, not over `limit` bytes."""
    if archive.getinfo(name).file_size > limit:
        raise InputError(
            f"{path}: part {name!r} is over the size limit of {limit >> 20} MiB; export as CSV, which is streamed"
        )
    tail, text = b"", 0
    for chunk in member_chunks(path, archive, name):
        if b"<!DOCTYPE" in tail + chunk or b"<!ENTITY" in tail + chunk or b"\0" in chunk:
            raise InputError(f"{path}: part {name!r} declares XML entities or is no UTF-8; refused: save the file anew")
        longest = max(map(len, chunk.split(b"<")))
        text = text + len(chunk) if b"<" not in chunk else len(chunk) - chunk.rfind(b"<")
        if max(text, longest) > MAX_TEXT:
            raise InputError(
                f"{path}: part {name!r} holds a text over the size limit of {MAX_TEXT >> 20} MiB; split it"
            )
        tail = chunk[-16:]


def member_chunks(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """The unpacked bytes of a member, 1 MiB at a time; a wrong checksum is an `InputError`."""
    try:
        with archive.open(name) as member:
            while chunk := member.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        raise InputError(f"{path}: part {name!r} is cut or damaged; fetch the file again") from None
