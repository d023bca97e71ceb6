curl -X POST "http://72.60.206.114:3000/gather" \
  -H "Authorization: Bearer ak_live_123" \
  -H "Content-Type: application/json" \
  -d '{"callId":"1720012345.88","text":"Enter 4 digit pin","numDigits":4,"timeout":12000}'
