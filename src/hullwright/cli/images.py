"""`hullwright image ...`: bootable disks, their bytes up and down."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from cliff.lister import Lister
from cliff.show import ShowOne
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hullwright.cli import find, http
from hullwright.cli.base import ApiCommand, Bytes, Pairs, Table, pair
from hullwright.objects.errors import HullwrightError

COLUMNS = (
    "ID", "Name", "Status", "Visibility", "Disk format", "Size", "Virtual size", "Checksum", "Min disk GB", "Min RAM MB", "Properties",
)  # fmt: skip
LIST_COLUMNS = ("ID", "Name", "Status", "Disk format", "Size")
DISK_FORMATS = ("qcow2", "raw", "aki", "ari", "ami")

# Members of the image API that are no properties of the image's own.
_STANDARD = {
    "id", "name", "status", "disk_format", "container_format", "size", "virtual_size", "checksum", "min_disk", "min_ram",
    "visibility", "protected", "owner", "tags", "created_at", "updated_at", "self", "file", "schema", "direct_url", "locations",
    "os_hidden", "os_hash_algo", "os_hash_value", "stores", "owner_specified.openstack.md5", "owner_specified.openstack.sha256",
}  # fmt: skip


class TransferFailed(HullwrightError):
    """The bytes did not come over whole."""

    message = "{reason}"


def _row(image: dict[str, Any]) -> tuple[Any, ...]:
    return (
        image["id"],
        image["name"],
        image["status"],
        image["visibility"],
        image["disk_format"],
        Bytes(image["size"]),
        Bytes(image.get("virtual_size")),
        image.get("checksum"),
        image["min_disk"],
        image["min_ram"],
        Pairs({name: value for name, value in image.items() if name not in _STANDARD}),
    )


def transfer_bar() -> Progress:
    """A bar for bytes on stderr; silent where stderr is no terminal."""
    console = Console(file=sys.stderr)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class Create(ApiCommand, ShowOne):
    """Make an image and upload its bytes"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name")
        parser.add_argument("--file", required=True, type=Path, help="the bytes; - reads stdin")
        parser.add_argument("--disk-format", choices=DISK_FORMATS, default="qcow2", help="default qcow2")
        parser.add_argument("--min-disk-gb", type=int, default=0)
        parser.add_argument("--min-ram-mb", type=int, default=0)
        parser.add_argument("--private", action="store_true", help="for its project only: all that who is no administrator may make")
        parser.add_argument(
            "--property", type=pair, action="append", default=[], metavar="KEY=VALUE", help="such as hw_disk_bus=virtio, kernel_id=<image>"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Make the record, send the bytes; a record whose bytes are refused is deleted again."""
        container = parsed_args.disk_format if parsed_args.disk_format in ("aki", "ari", "ami") else "bare"
        body = dict(parsed_args.property) | {
            "name": parsed_args.name,
            "disk_format": parsed_args.disk_format,
            "container_format": container,
            "min_disk": parsed_args.min_disk_gb,
            "min_ram": parsed_args.min_ram_mb,
            "visibility": "private" if parsed_args.private else "public",
        }
        source = _source(parsed_args.file)
        with source, transfer_bar() as bar:
            total = None if parsed_args.file == Path("-") else os.fstat(source.fileno()).st_size
            image = self.client.post(http.IMAGE + "/images", body)
            path = f"{http.IMAGE}/images/{image['id']}"
            task = bar.add_task("upload", total=total)
            try:
                self.client.put_stream(path + "/file", source, lambda sent: bar.update(task, completed=sent))
            except BaseException:  # Ctrl-C too: an image without bytes is of no use
                self.client.delete(path)
                raise
        return COLUMNS, _row(self.client.get(path))


def _source(path: Path) -> BinaryIO:
    if path == Path("-"):
        return sys.stdin.buffer
    try:
        return cast(BinaryIO, path.open("rb"))
    except OSError as error:
        raise TransferFailed(reason=f"{path} cannot be read: {error.strerror}") from error


class List(ApiCommand, Lister):
    """List images"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Ask for all, page by page."""
        found: list[dict[str, Any]] = []
        path = http.IMAGE + "/images?limit=500"
        while path:
            page = self.client.get(path)
            found += page["images"]
            following = page.get("next")  # /v2/images?marker=...
            path = "" if not following else "/image" + following if following.startswith("/v2") else following
        return LIST_COLUMNS, [(i["id"], i["name"], i["status"], i["disk_format"], Bytes(i["size"])) for i in found]


class _Named(ApiCommand):
    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("image", help="id or name")
        return parser


class Show(_Named, ShowOne):
    """Show an image"""

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """Find it."""
        return COLUMNS, _row(find.image(self.client, parsed_args.image))


class Save(_Named):
    """Download an image's bytes into a file, and check them"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--file", required=True, type=Path, help="written under a name with .part until it is whole")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Write, compare checksums, and only then give the file its name."""
        image = find.image(self.client, parsed_args.image)
        digest = hashlib.new(image.get("os_hash_algo") or "md5", usedforsecurity=False)
        wanted = image.get("os_hash_value") or image.get("checksum")
        part = parsed_args.file.with_name(parsed_args.file.name + ".part")
        try:
            with part.open("wb") as target, transfer_bar() as bar:
                task = bar.add_task("download", total=image["size"])
                for chunk in self.client.get_stream(f"{http.IMAGE}/images/{image['id']}/file"):
                    target.write(chunk)
                    digest.update(chunk)
                    bar.advance(task, len(chunk))
            if wanted and digest.hexdigest() != wanted:
                raise TransferFailed(reason=f"{image['name']} arrived corrupt: {digest.name} {digest.hexdigest()}, not {wanted}")
            part.replace(parsed_args.file)
        except OSError as error:
            raise TransferFailed(reason=f"{parsed_args.file} cannot be written: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)


class Delete(ApiCommand):
    """Delete images"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument("images", nargs="+", metavar="image", help="id or name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete each."""
        for wanted in parsed_args.images:
            self.client.delete(f"{http.IMAGE}/images/{find.image(self.client, wanted)['id']}")
