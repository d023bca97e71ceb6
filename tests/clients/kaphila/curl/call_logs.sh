curl -X POST "http://72.60.206.114:3000/api/call-logs" \
  -H "Authorization: Bearer ak_live_123" \
  -H "Content-Type: application/json" \
  -d '{"page":1,"page_size":20,"status":"completed"}'
