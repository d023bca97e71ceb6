const crypto = require("crypto");

function isValidWebhook(rawBody, signatureHeader, secret) {
  const expected = crypto
    .createHmac("sha256", secret)
    .update(rawBody)
    .digest("hex");
  return `sha256=${expected}` === signatureHeader;
}

const body = require("fs").readFileSync(0);
console.log(isValidWebhook(body.toString(), process.argv[2], process.argv[3]));
