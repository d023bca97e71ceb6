import os
import requests
from flask import Flask, request, jsonify

app = Flask(__name__)

BASE_URL = os.getenv("KAPHILA_BASE_URL", "http://72.60.206.114:3000")
API_KEY = os.getenv("KAPHILA_API_KEY", "ak_live_123")

HEADERS = {
    "Authorization": f"Bearer {API_KEY}",
    "Content-Type": "application/json",
}


def post_api(path: str, payload: dict):
    resp = requests.post(f"{BASE_URL}{path}", json=payload, headers=HEADERS, timeout=15)
    resp.raise_for_status()
    return resp.json()


@app.post("/start-call")
def start_call():
    body = request.get_json(force=True) or {}
    number = body.get("number")
    if not number:
        return jsonify({"ok": False, "error": "number is required"}), 400

    webhook_url = body.get("webhookUrl", "https://your-domain.com/webhooks/kaphila")

    result = post_api("/makecall", {
        "number": number,
        "webhookUrl": webhook_url,
        "useAmd": True,
        "ringTimeout": 30,
        "voiceName": "en-US-Neural2-A"
    })
    return jsonify({"ok": True, "call": result})


@app.post("/webhooks/kaphila")
def kaphila_webhook():
    payload = request.get_json(force=True) or {}
    event = payload.get("event")
    call_id = payload.get("callId")

    if not call_id:
        return jsonify({"ok": True, "ignored": "missing callId"})

    if event == "call.answered":
        amd_status = ((payload.get("amd") or {}).get("status") or "UNKNOWN").upper()

        if amd_status == "MACHINE":
            post_api("/voice", {
                "callId": call_id,
                "playTo": "bridge",
                "text": "Hello. This is a reminder call from Kaphila. Please call us back at 1-800-555-0100."
            })
        else:
            post_api("/gather", {
                "callId": call_id,
                "playTo": "bridge",
                "text": "Press 1 for sales, press 2 for support.",
                "numDigits": 1,
                "timeout": 10000
            })

    elif event == "gather.complete":
        digits = str(payload.get("digits", ""))
        if digits == "1":
            post_api("/voice", {
                "callId": call_id,
                "playTo": "bridge",
                "text": "Connecting you to sales shortly."
            })
        elif digits == "2":
            post_api("/voice", {
                "callId": call_id,
                "playTo": "bridge",
                "text": "Connecting you to support shortly."
            })
        else:
            post_api("/voice", {
                "callId": call_id,
                "playTo": "bridge",
                "text": "Invalid input. Goodbye."
            })
            post_api("/hangup", {"callId": call_id})

    return jsonify({"ok": True})


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=5000, debug=True)
