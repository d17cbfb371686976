"""HTTP for staff: ``/admin/api/v1``, signed in with ``Authorization: Bearer``."""

from admin import audit, reports, session
from handlers.operations import Route

_PREFIX = "/admin/api/v1"

ROUTES = (
    Route(f"{_PREFIX}/session", session.Session, "Staff: session"),
    Route(f"{_PREFIX}/me", session.Me, "Staff: session"),
    Route(f"{_PREFIX}/directory", session.DirectoryHandler, "Staff: session"),
    Route(f"{_PREFIX}/audit", audit.AuditLog, "Staff: audit"),
    Route(f"{_PREFIX}/photos", reports.StaffPhotos, "Staff: cases"),
    Route(f"{_PREFIX}/reports", reports.Cases, "Staff: cases"),
    Route(f"{_PREFIX}/reports/{{number}}", reports.Case, "Staff: cases"),
    Route(f"{_PREFIX}/reports/{{number}}/actions/{{action}}", reports.CaseAction, "Staff: cases"),
    Route(f"{_PREFIX}/reports/{{number}}/contact", reports.CaseContact, "Staff: cases"),
)
