import hmac, hashlib
import sys

def is_valid_webhook(raw_body: bytes, signature: str, secret: str) -> bool:
    expected = hmac.new(
        secret.encode(), raw_body, hashlib.sha256
    ).hexdigest()
    return f"sha256={expected}" == signature

print(is_valid_webhook(sys.stdin.buffer.read(), sys.argv[1], sys.argv[2]))
