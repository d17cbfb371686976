"""The classifiers as the rest of the program uses them: opened on first use, in threads, and allowed to be missing.

They can be exchanged while they are used: the new ones are opened beside the old ones and take over between two
judgements. New ones that cannot be opened leave the old ones where they are.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from inference.model_files import MODELS, ModelUnavailable, verify
from inference.predictions import Judgement, Seen, Task, combined

if TYPE_CHECKING:
    from inference.photos import PhotoClassifier
    from inference.texts import TextClassifier

log = structlog.get_logger(__name__)

_Classifier = TypeVar("_Classifier", "PhotoClassifier", "TextClassifier")

Observer = Callable[[str, Judgement], None]
"""Told of each judgement: the task (``photos`` or one of the tasks of texts) and the answer. Called in any thread."""

ShadowObserver = Callable[[str, Judgement, Judgement], None]
"""Told of each judgement that the shadow gave as well: task, answer, the shadow's answer."""

_SHADOW_WAITING = 4
"""So many inputs, of up to 10 MB, may wait for the shadow; what comes while they do, it does not see."""


class Classifiers:
    """The classifiers of one folder, each opened when first used; one that fails waits for :meth:`forget_failures`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opening = threading.Lock()
        self._photos: PhotoClassifier | ModelUnavailable | None = None
        self._texts: TextClassifier | ModelUnavailable | None = None

    @property
    def opened(self) -> bool:
        """Whether any of them is open, so that its successor is wanted open too."""
        return any(each is not None and not isinstance(each, ModelUnavailable) for each in (self._photos, self._texts))

    def photos(self) -> PhotoClassifier:
        """The classifier of photos. Raises :class:`ModelUnavailable`."""
        from inference.photos import PhotoClassifier  # and numpy, for those processes alone that judge

        with self._opening:
            if self._photos is None:
                try:
                    self._photos = PhotoClassifier(self.folder)
                except ModelUnavailable as error:
                    self._photos = error
            return _usable(self._photos)

    def texts(self) -> TextClassifier:
        """The classifier of texts. Raises :class:`ModelUnavailable`."""
        from inference.texts import TextClassifier

        with self._opening:
            if self._texts is None:
                try:
                    self._texts = TextClassifier(self.folder)
                except ModelUnavailable as error:
                    self._texts = error
            return _usable(self._texts)

    def name(self, task: str) -> str:
        """The name of the network, with its corrections, that judges ``task``. Raises :class:`ModelUnavailable`."""
        return self.photos().name if task == "photos" else self.texts().name

    def see(self, data: bytes) -> Seen:
        """See :meth:`PhotoClassifier.see`."""
        return self.photos().see(data)

    def classify(self, task: Task, messages: Sequence[tuple[str, str]]) -> list[Judgement]:
        """See :meth:`TextClassifier.classify`."""
        return self.texts().classify(task, messages)

    def forget_failures(self) -> None:
        """Try those that could not be opened once more when they are next used: the file may have been mended."""
        with self._opening:
            if isinstance(self._photos, ModelUnavailable):
                self._photos = None
            if isinstance(self._texts, ModelUnavailable):
                self._texts = None

    def problems(self) -> list[str]:
        """Why each that cannot be opened cannot."""
        found = []
        for open_one in (self.photos, self.texts):
            try:
                open_one()
            except ModelUnavailable as error:
                found.append(str(error))
        return found


class InferenceService:
    """Judges photos and texts in threads of its own. Make one a process; making it reads nothing and cannot fail.

    Every method raises :class:`ModelUnavailable` (503 ``INFERENCE_UNAVAILABLE``) while the weights cannot be opened,
    so that whoever asks can go on without an answer; ``unavailable`` tells why without asking for one. Weights
    that could not be opened are tried again when ``unavailable`` is asked to, which each worker does all the time.
    """

    def __init__(self, folder: Path = MODELS, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._current = Classifiers(folder)
        self._refused: str | None = None
        self._shadow: Classifiers | None = None
        self._shadow_thread: ThreadPoolExecutor | None = None
        self._shadow_waiting = 0
        self.observe: Observer = lambda _task, _answer: None
        self.observe_shadow: ShadowObserver = lambda _task, _answer, _other: None

    @property
    def folder(self) -> Path:
        """Where the classifiers in use come from."""
        return self._current.folder

    async def photo(self, data: bytes) -> Judgement:
        """What one photo shows; raises what :func:`photos.pictures.read_picture` raises for files that it refuses."""
        return (await self.see(data)).judgement

    async def see(self, data: bytes) -> Seen:
        """What one photo shows and where it lies among photos; raises what :meth:`photo` raises."""
        seen: Seen = await self._run(lambda: self._current.see(data))
        self.observe("photos", seen.judgement)
        self._ask_shadow("photos", [seen.judgement], lambda shadow: [shadow.see(data).judgement])
        return seen

    async def photos(self, files: Sequence[bytes]) -> Judgement:
        """What the photos of one report show together; raises ValueError without photos."""
        return combined(await asyncio.gather(*(self.photo(data) for data in files)))

    async def text(self, task: Task, title: str, text: str) -> Judgement:
        """What a message is about, by one of the three :data:`TASKS`."""
        (answer,) = await self.texts(task, [(title, text)])
        return answer

    async def texts(self, task: Task, messages: Sequence[tuple[str, str]]) -> list[Judgement]:
        """What each of the (title, text) pairs is about, in order."""
        answers: list[Judgement] = await self._run(lambda: self._current.classify(task, messages))
        for answer in answers:
            self.observe(task, answer)
        self._ask_shadow(task, answers, lambda shadow: shadow.classify(task, messages))
        return answers

    async def unavailable(self, *, again: bool = False) -> list[str]:
        """Why each classifier that cannot be opened cannot, and what was to replace them; empty when all is well.

        ``again``: try those that could not be opened once more.
        """
        current = self._current

        def look() -> list[str]:
            if again:
                current.forget_failures()  # waits while one is being opened, which takes seconds
            return current.problems()

        problems: list[str] = await self._run(look)
        return [*problems, self._refused] if self._refused else problems

    async def switch(self, folder: Path) -> bool:
        """Judge with the classifiers in ``folder`` from now on; False when those in use stay, because it is damaged.

        Whoever is being judged for meanwhile is not kept waiting: the new ones are opened in a thread of their own.
        """
        fresh = Classifiers(folder)

        def ready() -> None:
            verify(folder)
            # A process that has opened none, because it never judges, opens none for this either.
            if self._current.opened and (problems := fresh.problems()):
                raise ModelUnavailable(folder.name, "; ".join(problems))

        try:
            await asyncio.to_thread(ready)
        except ModelUnavailable as error:
            refused = f"{folder.name} is not used: {error}"
            if refused != self._refused:
                log.error("inference.switch_refused", folder=folder.name, problem=str(error))
            self._refused = refused
            return False
        self._current, self._refused = fresh, None
        log.info("inference.switched", folder=folder.name)
        return True

    def set_shadow(self, folder: Path | None) -> None:
        """Let the classifiers in ``folder`` judge the same inputs, unheard and when there is time; None: none do."""
        self._shadow = None if folder is None else Classifiers(folder)
        if folder is not None and self._shadow_thread is None:
            self._shadow_thread = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=_stand_back)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._shadow_thread is not None:
            self._shadow_thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _ask_shadow(
        self, task: str, answers: Sequence[Judgement], judge: Callable[[Classifiers], Sequence[Judgement]]
    ) -> None:
        shadow, thread = self._shadow, self._shadow_thread
        if shadow is None or thread is None or self._shadow_waiting >= _SHADOW_WAITING:
            return
        self._shadow_waiting += 1

        def work() -> None:
            # A promotion changes one of the networks: the other would only agree with itself.
            if all(answer.model == shadow.name(task) for answer in answers):
                return
            for answer, other in zip(answers, judge(shadow), strict=True):
                self.observe_shadow(task, answer, other)

        def done(ended: asyncio.Future[None]) -> None:
            self._shadow_waiting -= 1
            if not ended.cancelled() and (error := ended.exception()) is not None:
                # Nobody waits for the shadow: what it cannot do is told once and asked of it no more.
                log.error("inference.shadow_failed", error=str(error), kind=type(error).__name__)
                if self._shadow is shadow:
                    self._shadow = None

        asyncio.get_running_loop().run_in_executor(thread, work).add_done_callback(done)


def _usable(opened: _Classifier | ModelUnavailable) -> _Classifier:
    if isinstance(opened, ModelUnavailable):
        raise ModelUnavailable(opened.file, opened.reason)
    return opened


def _stand_back() -> None:
    """Let this thread run when no other wants to. On Linux niceness is a thread's own."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
