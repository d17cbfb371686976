"""How the models do: for staff."""

from admin import PREFIX
from admin.inference import models
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/inference/statistics", models.Statistics, "Staff: indicators"),
    Route(f"{PREFIX}/inference/models", models.Models, "Staff: indicators"),
)
