curl -X GET "http://72.60.206.114:3000/api/me" \
  -H "Authorization: Bearer ak_live_123456" \
  -H "Content-Type: application/json"
