curl -X GET "http://72.60.206.114:3000/recordings/1720012345.88" \
  -H "Authorization: Bearer ak_live_123"
