# 1) Set your issued API key
API_KEY="ak_live_123"

# 2) Make call
curl -X POST "http://72.60.206.114:3000/makecall" \
  -H "Authorization: Bearer $API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"number":"14155550100","webhookUrl":"https://example.com/hook"}'
