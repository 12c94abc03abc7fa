"""A directory of images: one file per image, named by its id, whole or not there at all.

An upload goes to `<id>.part`, locked while it is written, and is synced and renamed when all of it has come; a part that nobody
holds is what a killed upload left, and the next upload sweeps it away. The API writes here directly, for an upload is a stream.
Not for: records of images (the caller keeps them), what is in the bytes (`drivers/image_format`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hullwright.objects.errors import (
    ImageNotFound,
    ImageStorageError,
    ImageStorageFull,
    ImageTooLarge,
    ImageUploadConflict,
)

CHUNK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")


class ImageDirectory:
    """The images that lie in a directory. Any number of processes may use it at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """The directory is made at the first upload."""
        self.directory = Path(path)

    def path(self, image_id: str) -> Path:
        """Where the image's bytes are, or would be.

        Raises: ImageNotFound for an id that cannot be a file's name.
        """
        if not _ID.fullmatch(image_id):
            raise ImageNotFound(id=image_id)
        return self.directory / image_id

    def write(self, image_id: str, chunks: Iterable[bytes], max_bytes: int) -> tuple[int, str, str]:
        """Store an image, replacing what was there; answers size in bytes, SHA-256 and MD5.

        Whatever goes wrong, also in `chunks`, nothing of it is left and an earlier image stays as it was.

        Raises: ImageTooLarge, ImageStorageFull, ImageStorageError, ImageUploadConflict.
        """
        final = self.path(image_id)
        part = final.with_name(f"{image_id}.part")
        with _translated(image_id):
            self.directory.mkdir(parents=True, exist_ok=True)
            self.sweep()
            handle = _lock(part)
        if handle is None:
            raise ImageUploadConflict(id=image_id)
        try:
            answer = _fill(handle, image_id, chunks, max_bytes)
            with _translated(image_id):
                os.fsync(handle)
                os.replace(part, final)
                _sync_directory(self.directory)
            return answer
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        finally:
            os.close(handle)

    def is_being_written(self, image_id: str) -> bool:
        """Whether somebody, in whatever process, is storing the image right now.

        Raises: ImageStorageError.
        """
        try:
            with _translated(image_id):
                handle = os.open(self.path(image_id).with_name(f"{image_id}.part"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except ImageNotFound:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def open_at(self, image_id: str, offset: int = 0) -> Iterator[bytes]:
        """Open the image for reading and yield its bytes from `offset` on, in chunks of 1 MiB.

        The file is open when this returns: an image deleted meanwhile is still read to its end.

        Raises: ImageNotFound, ImageStorageError.
        """
        with _translated(image_id):
            handle = os.open(self.path(image_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return _Chunks(handle, image_id, offset)

    def size(self, image_id: str) -> int:
        """Bytes of the image.

        Raises: ImageNotFound, ImageStorageError.
        """
        with _translated(image_id):
            return self.path(image_id).stat().st_size

    def delete(self, image_id: str) -> None:
        """Leave nothing of the image's bytes; gone is done.

        Raises: ImageStorageError.
        """
        with _translated(image_id):
            self.path(image_id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the parts that killed uploads left; those being written stay."""
        for part in self.directory.glob("*.part"):
            with contextlib.suppress(OSError):
                handle = _lock(part)
                if handle is not None:
                    part.unlink()
                    os.close(handle)


class _Chunks(Iterator[bytes]):
    """Reads a file to its end, then closes it; also when it is dropped half-read."""

    def __init__(self, handle: int, image_id: str, offset: int) -> None:
        self._handle = handle
        self._image_id = image_id
        self._offset = offset

    def __next__(self) -> bytes:
        if self._handle < 0:
            raise StopIteration
        with _translated(self._image_id):
            chunk = os.pread(self._handle, CHUNK_BYTES, self._offset)
        if not chunk:
            self.close()
            raise StopIteration
        self._offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()


def _fill(handle: int, image_id: str, chunks: Iterable[bytes], max_bytes: int) -> tuple[int, str, str]:
    size, sha256, md5 = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise ImageTooLarge(id=image_id, max_bytes=max_bytes)
        sha256.update(chunk)
        md5.update(chunk)
        rest = memoryview(chunk)
        with _translated(image_id):
            while rest:
                rest = rest[os.write(handle, rest) :]
    return size, sha256.hexdigest(), md5.hexdigest()


def _lock(part: Path) -> int | None:
    """Open the part, empty, and lock it; None when somebody else writes it."""
    while True:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it locked may have renamed or removed it meanwhile: then this is not the part any more.
            if os.fstat(handle).st_nlink and os.path.samestat(os.fstat(handle), os.stat(part)):
                os.ftruncate(handle, 0)
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translated(image_id: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ImageNotFound(id=image_id) from error
    except OSError as error:
        if error.errno in _FULL:
            raise ImageStorageFull(id=image_id, reason=os.strerror(error.errno)) from error
        raise ImageStorageError(id=image_id, reason=error.strerror or str(error)) from error
