"""HTTP for staff: ``/admin/api/v1``, signed in with ``Authorization: Bearer``."""

from admin import audit, calendar, exports, indicators, jobs, own_account, reports, roles, session, staff, units
from handlers.operations import Route

_PREFIX = "/admin/api/v1"

ROUTES = (
    Route(f"{_PREFIX}/session", session.Session, "Staff: session"),
    Route(f"{_PREFIX}/me", session.Me, "Staff: session"),
    Route(f"{_PREFIX}/me/password", own_account.OwnPassword, "Staff: session"),
    Route(f"{_PREFIX}/me/second-factor", own_account.OwnSecondFactor, "Staff: session"),
    Route(f"{_PREFIX}/me/second-factor/confirm", own_account.OwnSecondFactorConfirmed, "Staff: session"),
    Route(f"{_PREFIX}/me/sessions", own_account.OwnSessions, "Staff: session"),
    Route(f"{_PREFIX}/me/sessions/{{session_id}}", own_account.OwnSession, "Staff: session"),
    Route(f"{_PREFIX}/directory", session.DirectoryHandler, "Staff: session"),
    Route(f"{_PREFIX}/staff", staff.StaffAccounts, "Staff: administration"),
    Route(f"{_PREFIX}/staff/{{staff_id}}", staff.StaffAccount, "Staff: administration"),
    Route(f"{_PREFIX}/staff/{{staff_id}}/disable", staff.StaffDisabling, "Staff: administration"),
    Route(f"{_PREFIX}/staff/{{staff_id}}/enable", staff.StaffEnabling, "Staff: administration"),
    Route(f"{_PREFIX}/staff/{{staff_id}}/password-reset", staff.StaffPassword, "Staff: administration"),
    Route(f"{_PREFIX}/staff/{{staff_id}}/second-factor-reset", own_account.StaffSecondFactor, "Staff: administration"),
    Route(f"{_PREFIX}/staff/{{staff_id}}/sessions", own_account.StaffSessions, "Staff: administration"),
    Route(
        f"{_PREFIX}/staff/{{staff_id}}/sessions/{{session_id}}",
        own_account.StaffSessionHandler,
        "Staff: administration",
    ),
    Route(f"{_PREFIX}/roles", roles.StaffRoles, "Staff: administration"),
    Route(f"{_PREFIX}/roles/{{role_key}}", roles.StaffRole, "Staff: administration"),
    Route(f"{_PREFIX}/units", units.DisposalUnits, "Staff: administration"),
    Route(f"{_PREFIX}/units/{{unit_key}}", units.DisposalUnit, "Staff: administration"),
    Route(f"{_PREFIX}/units/{{unit_key}}/retire", units.UnitRetiring, "Staff: administration"),
    Route(f"{_PREFIX}/units/{{unit_key}}/restore", units.UnitRestoring, "Staff: administration"),
    Route(f"{_PREFIX}/audit", audit.AuditLog, "Staff: audit"),
    Route(f"{_PREFIX}/jobs", jobs.Jobs, "Staff: jobs"),
    Route(f"{_PREFIX}/jobs/{{job_id}}", jobs.Job, "Staff: jobs"),
    Route(f"{_PREFIX}/jobs/{{job_id}}/file", jobs.JobFile, "Staff: jobs"),
    Route(f"{_PREFIX}/jobs/{{job_id}}/cancel", jobs.JobCancel, "Staff: jobs"),
    Route(f"{_PREFIX}/exports", exports.Exports, "Staff: jobs"),
    Route(f"{_PREFIX}/calendar", calendar.WorkYear, "Staff: calendar"),
    Route(f"{_PREFIX}/calendar/{{day}}", calendar.WorkDay, "Staff: calendar"),
    Route(f"{_PREFIX}/indicators", indicators.Indicators, "Staff: indicators"),
    Route(f"{_PREFIX}/indicators/scheme", indicators.IndicatorSchemes, "Staff: indicators"),
    Route(f"{_PREFIX}/indicators/{{indicator}}/cases", indicators.IndicatorCases, "Staff: indicators"),
    Route(f"{_PREFIX}/photos", reports.StaffPhotos, "Staff: cases"),
    Route(f"{_PREFIX}/reports", reports.Cases, "Staff: cases"),
    Route(f"{_PREFIX}/reports/{{number}}", reports.Case, "Staff: cases"),
    Route(f"{_PREFIX}/reports/{{number}}/actions/{{action}}", reports.CaseAction, "Staff: cases"),
    Route(f"{_PREFIX}/reports/{{number}}/contact", reports.CaseContact, "Staff: cases"),
)
