#!/bin/bash
PHONE="+15551234567"
MESSAGE="Disk space critical on server1"

curl -s -X POST http://localhost:3000/api/outbound-call \
  -H "Content-Type: application/json" \
  -d "{\"to\": \"$PHONE\", \"message\": \"$MESSAGE\"}"
