curl -X POST "http://72.60.206.114:3000/recordings/1720012345.88/stop" \
  -H "Authorization: Bearer ak_live_123"
