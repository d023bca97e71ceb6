import axios from "axios";

export function createClient({ baseURL, token }) {
  return axios.create({
    baseURL,
    headers: {
      Authorization: `Bearer ${token}`,
      "Content-Type": "application/json"
    },
    timeout: 15000
  });
}

const api = createClient({ baseURL: "http://72.60.206.114:3000", token: "ak_live_123" });
const call = await api.post("/makecall", {
  number: "14155550100",
  webhookUrl: "https://example.com/hooks/calls",
  useAmd: true
});
console.log(call.data);
