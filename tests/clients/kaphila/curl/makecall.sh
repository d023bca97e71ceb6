curl -X POST "http://72.60.206.114:3000/makecall" \
  -H "Authorization: Bearer ak_live_123" \
  -H "Content-Type: application/json" \
  -d '{
    "number": "14155550100",
    "webhookUrl": "https://example.com/hooks/calls",
    "callerId": "19172452367",
    "useAmd": true,
    "voiceName": "en-US-Neural2-A",
    "ringTimeout": 30
  }'
