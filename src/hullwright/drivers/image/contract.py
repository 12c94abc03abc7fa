"""What Hullwright asks of an image service: records, and bytes from any offset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from hullwright.objects.images import Image


class ImageStore(Protocol):
    """The record of images that the embedded image service keeps. The caller hands one to the local driver."""

    def image(self, image_id: str) -> Image:
        """Raises: ImageNotFound."""
        ...


class ImageDriver(ABC):
    """An image service."""

    @abstractmethod
    def show(self, image_id: str) -> Image:
        """The record.

        Raises: ImageNotFound.
        """

    @abstractmethod
    def read(self, image: Image, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from `offset` on, in chunks of at most 1 MiB.

        Raises: ImageUnavailable.
        """

    @abstractmethod
    def close(self) -> None:
        """Give connections back."""
