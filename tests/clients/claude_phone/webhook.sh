curl -X POST http://localhost:3000/api/outbound-call \
  -H "Content-Type: application/json" \
  -d '{
    "to": "+15551234567",
    "message": "Server alert: High CPU usage detected.",
    "webhookUrl": "https://n8n.example.com/webhook/call-status"
  }'
