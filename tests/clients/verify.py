"""Says whether the Standard Webhooks library takes a delivery: secret, id, timestamp, signature and body as arguments."""

import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secret, identity, timestamp, signature, body = sys.argv[1:]
headers = {"webhook-id": identity, "webhook-timestamp": timestamp, "webhook-signature": signature}
try:
    Webhook(secret).verify(body, headers)
    print("genuine")
except WebhookVerificationError as error:
    print("refused:", error)
