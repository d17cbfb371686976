"""What a photo shows and a message is about; what is blurred in public pictures; how the models do and learn."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta

import structlog

from core.config import CONFIG_FILE, Settings
from core.database import merge_indexes
from core.room import Condition, Debts, Room, Task, Turn, Wakes, administered
from core.services import Services
from inference import labels, model_health, monitoring, promotions
from inference.labels import LabelService
from inference.model_health import ModelHealth
from inference.model_reloader import following
from inference.model_store import ModelStore
from inference.monitoring import Drift
from inference.photo_blurring import PhotoBlurring
from inference.photo_labelling import PhotoLabelling
from inference.promotions import Promotions
from inference.service import InferenceService
from photos.service import PhotoService

log = structlog.get_logger(__name__)

_BLURRED_AT_ONCE = 100  # a minute at most: new photos wait for the same worker


async def _open(services: Services, stack: AsyncExitStack) -> None:
    database, settings, photos = services.database, services.settings, services[PhotoService]
    # Making it opens nothing: weights are read by the process that first asks for a judgement.
    service = InferenceService(CONFIG_FILE.parent / settings.inference.folder, settings.inference.threads)
    stack.callback(service.close)
    services.add(
        service,
        ModelHealth(database, service, every=timedelta(seconds=settings.inference.check_seconds)),
        PhotoLabelling(photos, service),
        PhotoBlurring(photos, CONFIG_FILE.parent / settings.photos.detectors),
        LabelService(database),
        Promotions(database),
        Drift(database),
    )
    # From here on the process has the model in force.
    await stack.enter_async_context(following(settings, database, service))


def _stores(settings: Settings) -> dict[str, str]:
    """Where the models are that were trained here."""
    return {"models": ModelStore.of(settings).folder("0" * 16).parent.resolve().as_uri()}


async def blur_stored_photos(services: Services) -> None:
    """Have photos blurred that were stored before that was done."""
    if owed := await services[PhotoService].owe_blurring(_BLURRED_AT_ONCE):
        log.info("photos.blurring_owed", count=owed)


async def measure_drift(services: Services) -> None:
    """Put how the models did on the last whole day into the figures."""
    await services[Drift].measure()


async def _look_after_models(services: Services, _wakes: Wakes) -> None:
    if services.settings.inference.enabled:
        await services[ModelHealth].run()


async def _condition(services: Services) -> Condition:
    parts, warnings = {}, []
    problems = await services[ModelHealth].problems() if services.settings.inference.enabled else None
    if problems is not None:  # a worker has looked
        parts["inference"] = not problems
        warnings = [
            f"智能识别不可用（{problem}）。上报照常受理，待识别的等模型修复，也可人工分类。" for problem in problems
        ]
    if await services[PhotoService].blurring_is_late():
        warnings.append(
            "有照片超过 15 分钟没有遮挡人脸和车牌，公众看不到；请检查 worker 进程和 faces、plates 模型文件。"
        )
    return Condition(parts, warnings)


ROOM = Room(
    name="inference",
    indexes=merge_indexes(room.INDEXES for room in (model_health, labels, monitoring, promotions)),
    sharded=frozenset({"labels"}),
    open=_open,
    stores=_stores,
    debts=(
        *administered("model_promotions", "model_settings"),
        Debts(collection="photos", pay={"see": lambda services: services[PhotoLabelling].pay_see}),
        # Looking for faces and plates takes a hundred times as long as what else photos owe.
        Debts(
            collection="photos",
            group="blurring",
            pay={"blur": lambda services: services[PhotoBlurring].pay_blur},
            places=lambda settings: settings.photos.blur_threads,
            can_wait=frozenset({"blur"}),
        ),
    ),
    turns=(Turn("* * * * *", blur_stored_photos), Turn("*/10 * * * *", measure_drift)),
    tasks=(Task(_look_after_models),),
    http=("admin.inference.routes",),
    condition=_condition,
)
