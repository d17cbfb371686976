"""The weights in ``inference/models``: found, checked against their list, opened once a process.

``models.json`` lists each file with its SHA-256, so that a file cut short or swapped is named as such before
onnxruntime reads it, and the answers' ``model`` can be traced to the bytes that gave them.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import Unavailable

if TYPE_CHECKING:
    from inference.correction import Correction

MODELS: Final = Path(__file__).with_name("models")
LISTING: Final = "models.json"
DETECTORS: Final = "detectors.json"
"""The list of the weights that are taken over from others and never trained here."""


class ModelUnavailable(Unavailable):
    """503 ``INFERENCE_UNAVAILABLE``: the weights are missing or damaged; ``details`` says which file and why."""

    default_code = "INFERENCE_UNAVAILABLE"

    def __init__(self, file: str, reason: str) -> None:
        super().__init__("智能识别暂不可用，请人工选择类别。", details={"file": file, "reason": reason})
        self.file, self.reason = file, reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class Model:
    """One file of weights with its entry in ``listing``.

    ``name`` is the file's name and the first eight digits of its SHA-256, and those of its corrections. ``about`` is
    the entry: labels, sizes. ``corrections``: by task, what a district's labels have added. A ``large`` one takes whole
    pictures, and shares its working memory with others such.
    """

    def __init__(self, kind: str, folder: Path = MODELS, *, listing: str = LISTING, large: bool = False) -> None:
        try:
            entry = json.loads((folder / listing).read_text(encoding="utf-8"))[kind]
            self.about: dict[str, Any] = entry
            path = folder / entry["file"]
            weights = path.read_bytes()
        except OSError as error:
            # Where the folder lies is nobody's business who reads of it in /readyz.
            raise ModelUnavailable(kind, f"not readable: {error.strerror or type(error).__name__}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelUnavailable(kind, f"{listing} does not list it: {type(error).__name__}") from error
        digest = hashlib.sha256(weights).hexdigest()
        if digest != entry.get("sha256"):
            raise ModelUnavailable(path.name, f"damaged: its SHA-256 is not the one in {listing}")
        import onnxruntime  # two seconds and 20 MB, for those processes alone that judge

        options = onnxruntime.SessionOptions()
        # One thread a call: calls run side by side in as many threads as the caller has, which serves more of them.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if large:
            _prepare_arena()
            options.add_session_config_entry("session.use_env_allocators", "1")
            options.enable_mem_pattern = False  # one for each size of picture, as large as all that it holds at once
        else:
            options.enable_cpu_mem_arena = False  # the arena never gives back what one large batch took
        try:
            self.session: Any = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelUnavailable(path.name, f"onnxruntime refuses it: {error}") from error
        self.name = f"{path.stem}-{digest[:8]}"
        from inference.correction import Correction  # and numpy, for those processes alone that judge

        self.corrections: dict[str, Correction] = {}
        for task, file in entry.get("corrections", {}).items():
            try:
                self.corrections[task] = Correction.read(folder / file["file"], file["sha256"])
            except (OSError, ValueError, KeyError) as error:
                raise ModelUnavailable(str(file.get("file", task)), str(error) or type(error).__name__) from error
            self.name += f"+{file['sha256'][:8]}"


@cache
def _prepare_arena() -> None:
    """One arena for all the networks of this process that take whole pictures.

    Without, each layer's hundred megabytes are asked of the system, filled with noughts by it, and given back: a tenth
    of all processor time. An arena for each network would hold twice as much, for they work one after the other.
    """
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    as_asked_for = {"arena_extend_strategy": 1}  # 0 doubles each time
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(as_asked_for))


def verify(folder: Path) -> None:
    """See that every file that ``folder``'s models.json lists is whole. Raises :class:`ModelUnavailable`.

    Reads them once (some 12 MB) and opens none.
    """
    try:
        entries = json.loads((folder / "models.json").read_text(encoding="utf-8"))
        files = [file for entry in entries.values() for file in (entry, *entry.get("corrections", {}).values())]
        listed = [(folder / file["file"], file["sha256"]) for file in files]
    except OSError as error:
        raise ModelUnavailable("models.json", f"not readable: {error.strerror or type(error).__name__}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable("models.json", f"damaged: {type(error).__name__}") from error
    for path, sha256 in listed:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ModelUnavailable(path.name, f"not readable: {error.strerror or type(error).__name__}") from error
        if digest != sha256:
            raise ModelUnavailable(path.name, "damaged: its SHA-256 is not the one in models.json")
