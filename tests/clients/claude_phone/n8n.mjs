// The four steps of the document's n8n workflow, with requests as n8n's HTTP Request node sends them: a webhook trigger
// receives an event, a node POSTs to /api/outbound-call, a wait node pauses, a node asks for the status.
import { createServer } from "node:http";

const base = "http://localhost:3000";
const headers = { Accept: "application/json,text/html,application/xhtml+xml,application/xml,text/*;q=0.9, image/*;q=0.8, */*;q=0.7" };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function workflow(event) {
  const posted = await fetch(`${base}/api/outbound-call`, {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ to: "+15551234567", message: event.message }),
  });
  const { callId } = await posted.json();
  for (;;) {
    await pause(500);
    const shown = await (await fetch(`${base}/api/call/${callId}`, { headers })).json();
    if (shown.state === "completed" || shown.state === "failed") return shown;
  }
}

const trigger = createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  response.end();
  console.log(JSON.stringify(await workflow(JSON.parse(body))));
  trigger.close();
});
trigger.listen(0, "127.0.0.1", async () => {
  const { port } = trigger.address();
  const event = { message: "A deployment has failed." };
  await fetch(`http://127.0.0.1:${port}/webhook/alert`, { method: "POST", body: JSON.stringify(event), headers: { Connection: "close" } });
});
