"""Signing in, one's own account, and the accounts, roles and units of a district: for staff."""

from admin import PREFIX
from admin.accounts import delegations, own_account, roles, session, staff, units
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/session", session.Session, "Staff: session"),
    Route(f"{PREFIX}/me", session.Me, "Staff: session"),
    Route(f"{PREFIX}/me/password", own_account.OwnPassword, "Staff: session"),
    Route(f"{PREFIX}/me/second-factor", own_account.OwnSecondFactor, "Staff: session"),
    Route(f"{PREFIX}/me/second-factor/confirm", own_account.OwnSecondFactorConfirmed, "Staff: session"),
    Route(f"{PREFIX}/me/sessions", own_account.OwnSessions, "Staff: session"),
    Route(f"{PREFIX}/me/sessions/{{session_id}}", own_account.OwnSession, "Staff: session"),
    Route(f"{PREFIX}/session/acting", delegations.SessionActing, "Staff: session"),
    Route(f"{PREFIX}/delegations", delegations.Delegations, "Staff: session"),
    Route(f"{PREFIX}/delegations/{{delegation_id}}/end", delegations.DelegationEnd, "Staff: session"),
    Route(f"{PREFIX}/directory", session.DirectoryHandler, "Staff: session"),
    Route(f"{PREFIX}/staff", staff.StaffAccounts, "Staff: administration"),
    Route(f"{PREFIX}/staff/{{staff_id}}", staff.StaffAccount, "Staff: administration"),
    Route(f"{PREFIX}/staff/{{staff_id}}/disable", staff.StaffDisabling, "Staff: administration"),
    Route(f"{PREFIX}/staff/{{staff_id}}/enable", staff.StaffEnabling, "Staff: administration"),
    Route(f"{PREFIX}/staff/{{staff_id}}/password-reset", staff.StaffPassword, "Staff: administration"),
    Route(f"{PREFIX}/staff/{{staff_id}}/second-factor-reset", own_account.StaffSecondFactor, "Staff: administration"),
    Route(f"{PREFIX}/staff/{{staff_id}}/sessions", own_account.StaffSessions, "Staff: administration"),
    Route(
        f"{PREFIX}/staff/{{staff_id}}/sessions/{{session_id}}", own_account.StaffSessionHandler, "Staff: administration"
    ),
    Route(f"{PREFIX}/roles", roles.StaffRoles, "Staff: administration"),
    Route(f"{PREFIX}/roles/{{role_key}}", roles.StaffRole, "Staff: administration"),
    Route(f"{PREFIX}/roles/{{role_key}}/retire", roles.RoleRetiring, "Staff: administration"),
    Route(f"{PREFIX}/roles/{{role_key}}/restore", roles.RoleRestoring, "Staff: administration"),
    Route(f"{PREFIX}/units", units.DisposalUnits, "Staff: administration"),
    Route(f"{PREFIX}/units/{{unit_key}}", units.DisposalUnit, "Staff: administration"),
    Route(f"{PREFIX}/units/{{unit_key}}/retire", units.UnitRetiring, "Staff: administration"),
    Route(f"{PREFIX}/units/{{unit_key}}/restore", units.UnitRestoring, "Staff: administration"),
)
