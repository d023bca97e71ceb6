curl -X POST "http://72.60.206.114:3000/voice" \
  -H "Authorization: Bearer ak_live_123" \
  -H "Content-Type: application/json" \
  -d '{
    "callId":"1720012345.88",
    "text":"Press 1 for sales, press 2 for support",
    "playTo":"bridge"
  }'
