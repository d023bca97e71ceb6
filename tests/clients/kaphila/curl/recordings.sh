curl -X GET "http://72.60.206.114:3000/recordings" \
  -H "Authorization: Bearer ak_live_123"
