"""Long work that staff have asked for: how far it is, its file, and stopping it.

Each sees their own jobs; with the permission ``job.view`` also those of whoever reached no further than they do. What a
job has made holds what its asker reached, so its file is for who reaches as far, whoever asked
(docs/decisions/0084-a-job-reaches-as-its-asker-did.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field

from core.errors import Forbidden, NotFound
from core.queue.debts import Document
from core.queue.jobs import JobState
from core.storage.files import XLSX
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, Query
from handlers.operations import operation


class JobFileView(Answer):
    """The file that a job has made; ``GET /jobs/{job_id}/file`` until it is deleted."""

    name: str
    bytes: int
    sha256: str
    until: Moment = Field(description="Deleted after this.")


class JobProblem(Answer):
    """Why a job failed."""

    code: str
    message: str
    details: dict[str, Any]


class JobView(Answer):
    """A job: ``queued``, ``running``, then ``done``, ``failed`` or ``cancelled``."""

    job_id: str
    kind: str
    title: str
    asked_by: str
    asked_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    state: JobState
    percent: int = Field(description="100 when done.")
    done: int = Field(description="Steps (rows) that are through.")
    total: int = Field(description="Steps in all; 0 while that is not known.")
    result: dict[str, Any] = Field(description="Figures, e.g. rows.")
    error: JobProblem | None
    file: JobFileView | None


class JobPage(Answer):
    """One page of jobs."""

    jobs: list[JobView]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class JobQuery(Query):
    """Which jobs. Newest first."""

    everyone: Annotated[
        bool, Field(description="Also of others who reached no further than you do; takes the permission job.view.")
    ] = False
    kind: Annotated[str | None, Field(pattern=r"^[a-z_]{1,40}$")] = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class NoMore(Body):
    """Nothing has to be given."""


def job_view(job: Document) -> JobView:
    """A job as its document tells it."""
    file = job["file"]
    return JobView(
        job_id=job["_id"],
        asked_by=job["asked_by"]["name"],
        error=JobProblem(**job["error"]) if job["error"] else None,
        file=JobFileView(name=file["title"], bytes=file["bytes"], sha256=file["sha256"], until=job["files_until"])
        if file
        else None,
        **{
            name: job[name]
            for name in ("kind", "title", "asked_at", "started_at", "finished_at", "state", "percent", "done", "total")
        },
        result=job["result"],
    )


class JobHandler(BaseHandler):
    """What handlers about jobs share."""

    def own(self) -> Document:
        """One's own jobs, as a condition."""
        return {"asked_by.id": self.staff.staff_id}

    def seen(self) -> Document:
        """The jobs that may be seen and stopped, as a condition."""
        if "job.view" not in self.staff.permissions:
            return self.own()
        return {"$or": [self.own(), self.staff.reach.enclosed("reach")]}

    async def record(self, action: str, job: Document, result: Literal["done", "refused"] = "done") -> None:
        """Put on record what was done with ``job``."""
        await self.services.audit.record(
            action,
            subject=self.staff.named(),
            object_={"kind": "job", "id": job["_id"]},
            result=result,
            details={
                "kind": job["kind"],
                "asked_by": job["asked_by"]["id"],
                "phones": bool(job["params"].get("phones")),
                "sha256": job["file"]["sha256"] if job["file"] else None,
            },
        )


class Jobs(JobHandler):
    """``/jobs``."""

    @operation("List jobs", audience="staff", reach="limited", query=JobQuery, answer=JobPage, errors=(403,))
    async def get(self, query: JobQuery) -> JobPage:
        """One's own; or with those of others within one's areas and unit."""
        if query.everyone and "job.view" not in self.staff.permissions:
            raise Forbidden("您只能查看自己的任务。", code="NO_PERMISSION", details={"permission": "job.view"})
        seen = self.seen() if query.everyone else self.own()
        found, following = await self.services.jobs.list(query.page, query.size, seen, kind=query.kind)
        return JobPage(jobs=[job_view(job) for job in found], next_page=following)


class Job(JobHandler):
    """``/jobs/{job_id}``."""

    @operation("How far a job is", audience="staff", reach="limited", answer=JobView)
    async def get(self, job_id: str) -> JobView:
        """Ask again every second or two while it is queued or running."""
        return job_view(await self.services.jobs.get(job_id, self.seen()))


class JobFile(JobHandler):
    """``/jobs/{job_id}/file``."""

    @operation(
        "The file that a job has made",
        audience="staff",
        reach="limited",
        limits=("write",),
        produces=XLSX,
        errors=(403, 404),
    )
    async def get(self, job_id: str) -> None:
        """For who asked, or with job.view; while one reaches as far as it was made for. Each download is on record. An
        export with phones in clear takes the permission to look at phones as well."""
        job = await self.services.jobs.get(job_id, self.seen())
        file = job["file"]
        if file is None:
            raise NotFound("这个任务没有可下载的文件，或文件已过期删除。", code="FILE_NOT_FOUND")
        # One that was asked for before jobs kept their reach may hold all of the district.
        everywhere = {"areas": [self.services.settings.reports.division], "unit_id": None}
        if not self.staff.reach.encloses(**job.get("reach", everywhere)):
            await self.record("job.download", job, "refused")
            raise Forbidden(
                "这个文件的数据超出您现在的辖区或部门，不能下载；请在现有范围内重新导出。", code="JOB_BEYOND_REACH"
            )
        if job["params"].get("phones") and "report.view_contact" not in self.staff.permissions:
            await self.record("job.download", job, "refused")
            raise Forbidden("文件含完整联系电话，您没有查看的权限。", code="NO_PERMISSION")
        await self.record("job.download", job)
        self.set_header("Content-Type", XLSX)
        self.set_header("Content-Length", str(file["bytes"]))
        self.set_header(
            "Content-Disposition", f"attachment; filename=\"{job_id}.xlsx\"; filename*=UTF-8''{quote(file['title'])}"
        )
        async for piece in self.services.jobs.files.pieces(job_id, file["name"]):
            self.write(piece)
            await self.flush()


class JobCancel(JobHandler):
    """``/jobs/{job_id}/cancel``."""

    @operation(
        "Stop a job", audience="staff", reach="limited", body=NoMore, answer=JobView, limits=("write",), errors=(409,)
    )
    async def post(self, job_id: str, body: NoMore) -> JobView:
        """While it is queued or running. What it has done so far, such as rows imported, stays."""
        job = await self.services.jobs.cancel(job_id, self.seen())
        await self.record("job.cancel", job)
        return job_view(job)
