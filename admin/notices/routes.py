"""The inbox of staff."""

from admin import PREFIX
from admin.notices import inbox
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/notices", inbox.Notices, "Staff: notices"),
    Route(f"{PREFIX}/notices/read", inbox.NoticesRead, "Staff: notices"),
    Route(f"{PREFIX}/notices/{{notice_id}}/read", inbox.NoticeRead, "Staff: notices"),
)
