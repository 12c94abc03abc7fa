"""The bytes of images: upload, whole and checked or not at all; download, whole or by range.

An upload belongs to a record that is saving. It ends active; or queued again, when the bytes did not come whole and a second try may
help; or killed, when the bytes came and may not be used, with the reason in the property `hullwright_refused`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import falcon

from hullwright.api.context import ApiContext, caller
from hullwright.api.errors import HttpError
from hullwright.api.image.access import changeable, visible
from hullwright.api.resource import Resource
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.drivers.image_format import HEAD_BYTES, ImageFacts, inspect
from hullwright.objects.errors import ImageTooLarge, ImageUnacceptable, ImageUploadConflict
from hullwright.objects.images import Image
from hullwright.persistence import images
from hullwright.persistence.database import now

LOG = logging.getLogger(__name__)

REFUSED = "hullwright_refused"
_CHUNK_BYTES = 1 << 20
# What is still read from a client whose upload was refused early, so that it reads the answer instead of finding a cut connection.
_DRAIN_BYTES = 256 << 20


class ImageData(Resource):
    """PUT and GET /v2/images/{image_id}/file."""

    def __init__(self, context: ApiContext, directory: ImageDirectory) -> None:
        """Keep the parts."""
        super().__init__(context)
        self._directory = directory
        self._max_bytes = context.conf.image.max_size_gb << 30

    def on_put(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """Take the bytes."""
        if (req.content_type or "").partition(";")[0].strip() != "application/octet-stream":
            raise HttpError(415, "The body must be application/octet-stream.")
        began_at = now()
        with self.context.db.write() as conn:
            image = changeable(conn, caller(req), image_id)
            if not image.disk_format or not image.container_format:
                raise HttpError(400, "Properties disk_format, container_format must be set prior to saving data.")
            if not images.begin_upload(conn, image_id, began_at):
                raise HttpError(409, f"Image status transition from {image.status} to saving is not allowed.")
        upload = _Upload(req, image, self._max_bytes)
        try:
            upload.check_announced()
            size_bytes, sha256, md5 = self._directory.write(image_id, upload.chunks(), self._max_bytes)
            facts = self._check(upload, image, size_bytes)
        except ImageUploadConflict:
            raise  # the other upload goes on
        except BaseException as error:
            self._give_up(image, began_at, error)
            if not isinstance(error, OSError):
                upload.drain()
            raise
        with self.context.db.write() as conn:
            done = images.end_upload(
                conn,
                image_id,
                began_at,
                status="active",
                size_bytes=size_bytes,
                virtual_size_bytes=facts.virtual_size_bytes,
                checksum_sha256=sha256,
                checksum_md5=md5,
                updated_at=now(),
            )
            gone = not done and not images.exists(conn, image_id)
        if gone:
            self._directory.delete(image_id)
            raise HttpError(410, f"Image {image_id} was deleted while its bytes arrived.")
        if not done:
            raise ImageUploadConflict(id=image_id)
        resp.status = 204

    def _check(self, upload: _Upload, image: Image, size_bytes: int) -> ImageFacts:
        """Look at what arrived; leave no bytes that may not be used."""
        try:
            upload.check_arrived(size_bytes)
            return inspect(image.id, image.disk_format, upload.head, size_bytes)
        except Exception:
            self._directory.delete(image.id)
            raise

    def _give_up(self, image: Image, began_at: float, error: BaseException) -> None:
        """Say in the record what became of the upload."""
        changes: dict[str, Any] = {"status": "queued"}
        if isinstance(error, ImageUnacceptable):
            changes = {"status": "killed", "properties": {**image.properties, REFUSED: error.text}}
        LOG.warning("upload of image %s ended %s: %s", image.id, changes["status"], error)
        with self.context.db.write() as conn:
            images.end_upload(conn, image.id, began_at, **changes, updated_at=now())

    def on_get(self, req: falcon.Request, resp: falcon.Response, image_id: str) -> None:
        """Give the bytes; with a Range header those asked for."""
        with self.context.db.read() as conn:
            image = visible(conn, caller(req), image_id)
        if image.status == "deactivated" and not caller(req).is_admin:
            raise HttpError(403, "The requested image has been deactivated. Image data download is forbidden.")
        if image.status in ("queued", "saving", "killed"):
            resp.status = 204
            return
        first, last = _asked(req, image.size_bytes)
        resp.content_type = "application/octet-stream"
        resp.set_header("Accept-Ranges", "bytes")
        if image.checksum_md5:
            resp.set_header("Content-MD5", image.checksum_md5)
        if req.range is not None:
            resp.status = 206
            resp.content_range = (first, last, image.size_bytes)
        chunks = self._directory.open_at(image_id, first)
        resp.set_stream(_limited(chunks, last - first + 1), last - first + 1)


class _Upload:
    """The bytes on their way in."""

    def __init__(self, req: falcon.Request, image: Image, max_bytes: int) -> None:
        self._req = req
        self._image = image
        self._max_bytes = max_bytes
        # A chunked body has no length; gunicorn ends it, and only then is the bare stream safe to read.
        self._stream = req.stream if req.content_length is None else req.bounded_stream
        self._announced = [req.content_length] if req.content_length is not None else []
        if (text := req.get_header("X-OpenStack-Image-Size")) is not None:
            if not (text.isascii() and text.isdigit()):
                raise HttpError(400, "X-OpenStack-Image-Size must be a whole number of bytes.")
            self._announced.append(int(text))
        self.head = b""

    def check_announced(self) -> None:
        """Refuse by the length that the client tells, before a byte is written.

        Raises: ImageTooLarge, HttpError 400.
        """
        for size in self._announced:
            if size > self._max_bytes:
                raise ImageTooLarge(id=self._image.id, max_bytes=self._max_bytes)
        if len(set(self._announced)) > 1:
            raise HttpError(400, "X-OpenStack-Image-Size is not the length of the body.")

    def chunks(self) -> Iterator[bytes]:
        """The bytes; the head is kept and, when the length is known, looked at before the rest comes.

        Raises: ImageUnacceptable.
        """
        looked = False
        while chunk := self._stream.read(_CHUNK_BYTES):
            if len(self.head) < HEAD_BYTES:
                self.head += chunk[: HEAD_BYTES - len(self.head)]
            if not looked and self._announced and len(self.head) >= min(HEAD_BYTES, self._announced[0]):
                inspect(self._image.id, self._image.disk_format, self.head, self._announced[0])
                looked = True
            yield chunk

    def check_arrived(self, size_bytes: int) -> None:
        """Refuse an upload that was cut off: a shorter body looks like an ended one.

        Raises: HttpError 400.
        """
        for announced in self._announced:
            if size_bytes != announced:
                raise HttpError(400, f"The upload was cut off: {size_bytes} of {announced} bytes arrived.")

    def drain(self) -> None:
        """Read a little on, so that the client has sent what it is sending and hears the answer."""
        if (self._req.content_length or 0) > _DRAIN_BYTES:
            return
        left = _DRAIN_BYTES
        try:
            while left > 0 and (chunk := self._stream.read(_CHUNK_BYTES)):
                left -= len(chunk)
        except OSError:
            pass


def _asked(req: falcon.Request, size_bytes: int) -> tuple[int, int]:
    """First and last byte to give.

    Raises: falcon.HTTPRangeNotSatisfiable.
    """
    if req.range is None:
        return 0, size_bytes - 1
    if req.range_unit != "bytes":
        raise falcon.HTTPRangeNotSatisfiable(size_bytes)
    first, last = req.range
    if first < 0:  # the last so many
        first, last = max(size_bytes + first, 0), size_bytes - 1
    last = size_bytes - 1 if last < 0 else min(last, size_bytes - 1)
    if first >= size_bytes or first > last:
        raise falcon.HTTPRangeNotSatisfiable(size_bytes)
    return first, last


def _limited(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The first `count` bytes; closes the file however it ends."""
    try:
        for chunk in chunks:
            if count <= len(chunk):
                yield chunk[:count]
                return
            count -= len(chunk)
            yield chunk
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
