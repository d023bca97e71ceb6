# 1) Place call with AMD + webhook
curl -X POST "http://72.60.206.114:3000/makecall" \
  -H "Authorization: Bearer ak_live_123" \
  -H "Content-Type: application/json" \
  -d '{
    "number": "14155550100",
    "webhookUrl": "https://your-domain.com/webhooks/kaphila",
    "useAmd": true,
    "ringTimeout": 30
  }'

# 2) Your webhook receives call.answered with amd.status = HUMAN or MACHINE
# 3) HUMAN -> POST /gather ; MACHINE -> POST /voice (voicemail drop)
