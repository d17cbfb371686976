"""The areas of a district: for staff."""

from admin import PREFIX
from admin.places import areas
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/areas", areas.Areas, "Staff: administration"),
    Route(f"{PREFIX}/areas/{{area_code}}", areas.Area, "Staff: administration"),
)
