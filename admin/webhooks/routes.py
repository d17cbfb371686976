"""Who is told of changes over HTTP: for staff."""

from admin import PREFIX
from admin.webhooks import subscriptions
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/webhooks", subscriptions.Webhooks, "Staff: webhooks"),
    Route(f"{PREFIX}/webhooks/{{webhook_id}}", subscriptions.Webhook, "Staff: webhooks"),
    Route(f"{PREFIX}/webhooks/{{webhook_id}}/secret", subscriptions.WebhookSecret, "Staff: webhooks"),
    Route(f"{PREFIX}/webhooks/{{webhook_id}}/deliveries", subscriptions.WebhookDeliveries, "Staff: webhooks"),
    Route(f"{PREFIX}/webhooks/{{webhook_id}}/redeliver", subscriptions.WebhookRedelivery, "Staff: webhooks"),
    Route(
        f"{PREFIX}/webhooks/{{webhook_id}}/deliveries/{{delivery_id}}/redeliver",
        subscriptions.DeliveryRedelivery,
        "Staff: webhooks",
    ),
)
