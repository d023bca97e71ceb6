import requests

base_url = "http://72.60.206.114:3000"
headers = {
    "Authorization": "Bearer ak_live_123456",
    "Content-Type": "application/json"
}

resp = requests.get(f"{base_url}/api/me", headers=headers, timeout=15)
print(resp.status_code, resp.json())
