"""The classifiers as the rest of the program uses them: opened on first use, in threads, and allowed to be missing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inference.judgement import Judgement
from inference.model_files import MODELS, ModelUnavailable
from inference.photos import PhotoClassifier, Seen, combined
from inference.texts import Task, TextClassifier


class InferenceService:
    """Judges photos and texts in threads of its own. Make one a process; making it reads nothing and cannot fail.

    Every method raises :class:`ModelUnavailable` (503 ``INFERENCE_UNAVAILABLE``) while the weights cannot be opened,
    so that whoever asks can go on without an answer; ``unavailable`` tells why without asking for one. Weights
    that could not be opened are not tried again: a mended file takes a restart.
    """

    def __init__(self, folder: Path = MODELS, threads: int = 2) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._opening = threading.Lock()
        self._photos: PhotoClassifier | ModelUnavailable | None = None
        self._texts: TextClassifier | ModelUnavailable | None = None

    async def photo(self, data: bytes) -> Judgement:
        """What one photo shows; raises what :func:`core.pictures.read_picture` raises for files that it refuses."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._open_photos().classify(data)
        )

    async def see(self, data: bytes) -> Seen:
        """What one photo shows and where it lies among photos; raises what :meth:`photo` raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._open_photos().see(data))

    async def photos(self, files: Sequence[bytes]) -> Judgement:
        """What the photos of one report show together; raises ValueError without photos."""
        return combined(await asyncio.gather(*(self.photo(data) for data in files)))

    async def text(self, task: Task, title: str, text: str) -> Judgement:
        """What a message is about, by one of the three :data:`TASKS`."""
        (answer,) = await self.texts(task, [(title, text)])
        return answer

    async def texts(self, task: Task, messages: Sequence[tuple[str, str]]) -> list[Judgement]:
        """What each of the (title, text) pairs is about, in order."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._open_texts().classify(task, messages)
        )

    async def unavailable(self) -> list[str]:
        """Why each classifier that cannot be opened cannot; empty when all is well."""

        def reasons() -> list[str]:
            found = []
            for open_one in (self._open_photos, self._open_texts):
                try:
                    open_one()
                except ModelUnavailable as error:
                    found.append(str(error))
            return found

        return await asyncio.get_running_loop().run_in_executor(self._threads, reasons)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _open_photos(self) -> PhotoClassifier:
        with self._opening:
            if self._photos is None:
                try:
                    self._photos = PhotoClassifier(self._folder)
                except ModelUnavailable as error:
                    self._photos = error
        if isinstance(self._photos, ModelUnavailable):
            raise ModelUnavailable(self._photos.file, self._photos.reason)
        return self._photos

    def _open_texts(self) -> TextClassifier:
        with self._opening:
            if self._texts is None:
                try:
                    self._texts = TextClassifier(self._folder)
                except ModelUnavailable as error:
                    self._texts = error
        if isinstance(self._texts, ModelUnavailable):
            raise ModelUnavailable(self._texts.file, self._texts.reason)
        return self._texts
