"""What Schemathesis is told about this server; every other check is its own."""

import schemathesis

# Refusals that are of the server's class by their meaning and not by a fault of it: a text in which there is nothing to
# say, a key whose trunks were taken away or do not answer.
MEANT = (
    "TTS failed",
    "No outbound route",
    "All trunk originate attempts failed",
    "Sound file cannot be played",
)


@schemathesis.check
def nothing_breaks(ctx, response, case):
    """503 is a refusal, and so is a 500 that says which; any other is a fault."""
    if response.status_code < 500 or response.status_code == 503:
        return
    text = response.content.decode("utf-8", "replace")
    if not any(meant in text for meant in MEANT):
        raise AssertionError(f"{response.status_code} {text[:500]}")
