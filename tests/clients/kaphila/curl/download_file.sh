curl -L "http://72.60.206.114:3000/recordings/file/call-1720012345.88-1739781234567.wav/download" \
  -H "Authorization: Bearer ak_live_123" \
  -o call.wav
