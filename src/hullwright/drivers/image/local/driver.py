"""The embedded image service: records from a store that the caller hands in, bytes from a directory.

Not for: uploads; the API writes to the directory itself (`store`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hullwright.conf import image as image_conf
from hullwright.drivers.image.contract import ImageDriver, ImageStore
from hullwright.drivers.image.local.store import ImageDirectory
from hullwright.objects.errors import HullwrightError, ImageNotFound, ImageStorageError, ImageUnavailable
from hullwright.objects.images import Image


class LocalImageDriver(ImageDriver):
    """Images in a directory."""

    def __init__(self, conf: Any, images: ImageStore) -> None:
        self._images = images
        self.directory = ImageDirectory(image_conf.directory(conf))

    def show(self, image_id: str) -> Image:
        """The record.

        Raises: ImageNotFound.
        """
        return self._images.image(image_id)

    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on, in chunks of at most 1 MiB.

        Raises: ImageUnavailable.
        """
        self._check(image)
        try:
            yield from self.directory.open_at(image.id, offset)
        except (ImageNotFound, ImageStorageError) as error:
            raise ImageUnavailable(image=image.id, reason=error.text) from error

    def _check(self, image: Image) -> None:
        """Refuse an image that is not whole.

        Raises: ImageUnavailable.
        """
        reason = None
        if image.status != "active":
            reason = f"its status is {image.status}"
        else:
            try:
                size_bytes = self.directory.size(image.id)
            except HullwrightError as error:
                reason = "its bytes are gone" if isinstance(error, ImageNotFound) else error.text
            else:
                if size_bytes != image.size_bytes:
                    reason = f"its file has {size_bytes} bytes, its record says {image.size_bytes}"
        if reason:
            raise ImageUnavailable(image=image.id, reason=reason)

    def close(self) -> None:
        """Nothing is held open."""
