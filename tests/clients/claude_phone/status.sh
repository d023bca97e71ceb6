# Get call status
curl http://localhost:3000/api/call/abc123-uuid

# List all active calls
curl http://localhost:3000/api/calls
