import requests

class APIApiClient:
    def __init__(self, base_url: str, token: str):
        self.base_url = base_url.rstrip("/")
        self.session = requests.Session()
        self.session.headers.update({
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        })

    def make_call(self, number: str, webhook_url: str = None):
        payload = {"number": number}
        if webhook_url:
            payload["webhookUrl"] = webhook_url
        resp = self.session.post(f"{self.base_url}/makecall", json=payload, timeout=20)
        resp.raise_for_status()
        return resp.json()

client = APIApiClient("http://72.60.206.114:3000", "ak_live_123")
print(client.make_call("14155550100", "https://example.com/hooks/calls"))
