"""What belongs to every room: the audit log, jobs and their files, photos: for staff."""

from admin import PREFIX
from admin.common import audit, jobs, live, photos
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/live", live.Live, "Staff: live updates"),
    Route(f"{PREFIX}/audit", audit.AuditLog, "Staff: audit"),
    Route(f"{PREFIX}/jobs", jobs.Jobs, "Staff: jobs"),
    Route(f"{PREFIX}/jobs/{{job_id}}", jobs.Job, "Staff: jobs"),
    Route(f"{PREFIX}/jobs/{{job_id}}/file", jobs.JobFile, "Staff: jobs"),
    Route(f"{PREFIX}/jobs/{{job_id}}/cancel", jobs.JobCancel, "Staff: jobs"),
    Route(f"{PREFIX}/photos", photos.StaffPhotos, "Staff: cases"),
)
