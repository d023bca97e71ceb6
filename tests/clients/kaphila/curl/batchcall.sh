curl -X POST "http://72.60.206.114:3000/batchcall" \
  -H "Authorization: Bearer ak_live_123" \
  -H "Content-Type: application/json" \
  -d '{"number":"14155550123","ringTimeout":20}'
