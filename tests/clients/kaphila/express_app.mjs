import express from "express";
import axios from "axios";

const app = express();
app.use(express.json());

const BASE_URL = process.env.KAPHILA_BASE_URL || "http://72.60.206.114:3000";
const API_KEY = process.env.KAPHILA_API_KEY || "ak_live_123";

const api = axios.create({
  baseURL: BASE_URL,
  headers: {
    Authorization: `Bearer ${API_KEY}`,
    "Content-Type": "application/json",
  },
  timeout: 15000,
});

app.post("/start-call", async (req, res) => {
  try {
    const { number, webhookUrl } = req.body;
    if (!number) return res.status(400).json({ ok: false, error: "number is required" });

    const call = await api.post("/makecall", {
      number,
      webhookUrl: webhookUrl || "https://your-domain.com/webhooks/kaphila",
      useAmd: true,
      ringTimeout: 30,
      voiceName: "en-US-Neural2-A",
    });

    return res.json({ ok: true, call: call.data });
  } catch (err) {
    return res.status(500).json({ ok: false, error: err.message });
  }
});

app.post("/webhooks/kaphila", async (req, res) => {
  const payload = req.body || {};
  const event = payload.event;
  const callId = payload.callId;

  try {
    if (!callId) return res.json({ ok: true, ignored: "missing callId" });

    if (event === "call.answered") {
      const amd = String(payload?.amd?.status || "UNKNOWN").toUpperCase();

      if (amd === "MACHINE") {
        await api.post("/voice", {
          callId,
          playTo: "bridge",
          text: "Hello. This is a reminder call from Kaphila. Please call us back at 1-800-555-0100.",
        });
      } else {
        await api.post("/gather", {
          callId,
          playTo: "bridge",
          text: "Press 1 for sales, press 2 for support.",
          numDigits: 1,
          timeout: 10000,
        });
      }
    }

    if (event === "gather.complete") {
      const digits = String(payload.digits || "");
      if (digits === "1") {
        await api.post("/voice", { callId, playTo: "bridge", text: "Connecting you to sales shortly." });
      } else if (digits === "2") {
        await api.post("/voice", { callId, playTo: "bridge", text: "Connecting you to support shortly." });
      } else {
        await api.post("/voice", { callId, playTo: "bridge", text: "Invalid input. Goodbye." });
        await api.post("/hangup", { callId });
      }
    }

    return res.json({ ok: true });
  } catch (err) {
    return res.status(500).json({ ok: false, error: err.message });
  }
});

app.listen(5000, () => {
  console.log("Webhook server running on :5000");
});
