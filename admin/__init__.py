"""HTTP for staff: ``/admin/api/v1``, signed in with ``Authorization: Bearer``. One folder a room."""

PREFIX = "/admin/api/v1"
