"""Photos kept in a folder and in a bucket: put, got back, removed, and never elsewhere."""

import asyncio
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from core.errors import NotFound, Unavailable
from core.ids import new_id
from photos.pictures import SizeName
from photos.store import PhotoStore

SIZES: dict[SizeName, bytes] = {"large": b"L" * 300_000, "medium": b"M" * 90_000, "thumb": b"T" * 9_000}


class Bucket(BaseHTTPRequestHandler):
    """As much of S3 as a photo store uses: objects by path, over HTTP, for signed requests only."""

    objects: ClassVar[dict[str, bytes]] = {}
    types: ClassVar[dict[str, str | None]] = {}
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Wed, 01 May 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def handle_one(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not (self.headers.get("Authorization") or "").startswith("AWS4-HMAC-SHA256 Credential=key/"):
            self.answer(403)
        elif self.command == "PUT":
            self.objects[path] = body
            self.types[path] = self.headers.get("Content-Type")
            self.answer(200)
        elif self.command == "DELETE":
            self.objects.pop(path, None)
            self.answer(204)
        elif path in self.objects:
            self.answer(200, self.objects[path])
        else:
            self.answer(404)

    do_GET = do_PUT = do_DELETE = handle_one

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def bucket() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()
    Bucket.objects.clear()
    Bucket.types.clear()


def in_bucket(endpoint: str, **options: str) -> PhotoStore:
    access = {"endpoint": endpoint, "access_key_id": "key", "secret_access_key": "secret", "region": "cn-south-1"}
    return PhotoStore.from_url("s3://photos/district/one", **(access | options))  # type: ignore[arg-type]


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.http)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PhotoStore:
    if request.param == "folder":
        return PhotoStore.from_url(f"file://{tmp_path}/new/照片%20store")
    return in_bucket(request.getfixturevalue("bucket"))


async def test_each_size_that_was_put_is_got_back(store):
    photo = new_id()

    await store.put(photo, SIZES)

    for size, content in SIZES.items():
        got = await store.get(photo, size)
        assert type(got) is bytes
        assert got == content


async def test_what_was_put_twice_is_what_was_put_last(store):
    photo = new_id()

    await store.put(photo, SIZES)
    await store.put(photo, {"large": b"again"})

    assert await store.get(photo, "large") == b"again"
    assert await store.get(photo, "thumb") == SIZES["thumb"]


async def test_a_deleted_photo_is_gone_in_every_size_and_deleting_again_is_no_error(store):
    photo, other = new_id(), new_id()
    await store.put(photo, SIZES)
    await store.put(other, SIZES)

    await store.delete(photo)
    await store.delete(photo)

    for size in SIZES:
        with pytest.raises(NotFound):
            await store.get(photo, size)
    assert await store.get(other, "large") == SIZES["large"]


async def test_many_photos_are_put_at_once(store):
    photos = {new_id(): f"photo {n}".encode() for n in range(50)}

    await asyncio.gather(*(store.put(photo, {"thumb": content}) for photo, content in photos.items()))

    assert [await store.get(photo, "thumb") for photo in photos] == list(photos.values())


@pytest.mark.parametrize(
    ("photo", "size"),
    [
        ("../../../../etc/passwd", "large"),
        ("", "large"),
        ("0" * 25, "large"),
        ("0" * 26 + "\n", "large"),
        ("0" * 24 + "..", "large"),
        ("0" * 26, "../large"),
        ("0" * 26, "huge"),
        ("0" * 26, ""),
    ],
)
async def test_what_is_no_id_or_no_size_reaches_nothing(store, photo, size):
    with pytest.raises(NotFound):
        await store.get(photo, size)
    with pytest.raises(ValueError, match="no photo"):
        await store.put(photo, {size: b"x"})
    if size == "large":
        with pytest.raises(ValueError, match="no photo"):
            await store.delete(photo)


async def test_a_folder_holds_whole_files_spread_by_the_end_of_the_id_and_nothing_else(tmp_path):
    photo = new_id()

    await PhotoStore.from_url(tmp_path.as_uri()).put(photo, SIZES)

    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {f"{photo[-2:]}/{photo}.{size}.jpg": content for size, content in SIZES.items()}


async def test_put_returns_only_after_every_file_and_its_name_are_on_the_disk(tmp_path, monkeypatch):
    synced: set[Path] = set()
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", watched)
    photo = new_id()
    folder = tmp_path.resolve()

    await PhotoStore.from_url(folder.as_uri()).put(photo, SIZES)

    shelf = folder / photo[-2:]
    assert synced == {folder, shelf, *(shelf / f"{photo}.{size}.jpg" for size in SIZES)}


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path):
    store = PhotoStore.from_url(tmp_path.as_uri())
    photo = new_id()
    (tmp_path / photo[-2:]).write_text("a file where a folder has to be")

    with pytest.raises(Unavailable):
        await store.put(photo, SIZES)


async def test_a_bucket_holds_jpegs_under_its_prefix(bucket):
    photo = new_id()

    await in_bucket(bucket).put(photo, SIZES)

    paths = {f"/photos/district/one/{photo[-2:]}/{photo}.{size}.jpg": content for size, content in SIZES.items()}
    assert Bucket.objects == paths
    assert set(Bucket.types.values()) == {"image/jpeg"}


async def test_a_bucket_that_refuses_or_is_away_is_unavailable(bucket):
    refused = in_bucket(bucket, access_key_id="stranger")
    with pytest.raises(Unavailable):
        await refused.put(new_id(), SIZES)
    with pytest.raises(Unavailable):
        await refused.get(new_id(), "large")

    away = in_bucket("http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        await away.get(new_id(), "large")


@pytest.mark.parametrize("url", ["", "photos", "file://photos", "file://host/photos", "s3://", "http://bucket/x"])
def test_another_kind_of_url_is_refused(url):
    with pytest.raises(ValueError, match="things are kept at"):
        PhotoStore.from_url(url)
