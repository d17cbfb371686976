"""HTTP for citizens: ``/api/v1``, signed in with ``Authorization: Bearer``."""

from handlers.operations import Route
from miniprogram_api import account, reports

_PREFIX = "/api/v1"

ROUTES = (
    Route(f"{_PREFIX}/session", account.Session, "Citizen: account"),
    Route(f"{_PREFIX}/me", account.Me, "Citizen: account"),
    Route(f"{_PREFIX}/me/phone", account.Phone, "Citizen: account"),
    Route(f"{_PREFIX}/me/consents", account.Consents, "Citizen: account"),
    Route(f"{_PREFIX}/me/export", account.Export, "Citizen: account"),
    Route(f"{_PREFIX}/subscriptions", account.SubscriptionsHandler, "Citizen: account"),
    Route(f"{_PREFIX}/categories", reports.CategoriesHandler, "Citizen: reports"),
    Route(f"{_PREFIX}/photos", reports.Photos, "Citizen: reports"),
    Route(f"{_PREFIX}/reports", reports.Reports, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/similar", reports.Similar, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}", reports.Report, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}/follow", reports.Follow, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}/supplements", reports.Supplements, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}/withdrawal", reports.WithdrawalHandler, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}/rating", reports.RatingHandler, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}/urge", reports.Urge, "Citizen: reports"),
    Route(f"{_PREFIX}/reports/{{number}}/reopening", reports.ReopeningHandler, "Citizen: reports"),
)
