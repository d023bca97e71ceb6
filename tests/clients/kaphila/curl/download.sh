curl -L "http://72.60.206.114:3000/recordings/1720012345.88/download" \
  -H "Authorization: Bearer ak_live_123" \
  -o call.wav
