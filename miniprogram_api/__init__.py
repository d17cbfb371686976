"""HTTP for citizens: ``/api/v1``, signed in with ``Authorization: Bearer``. One module a room."""

PREFIX = "/api/v1"
