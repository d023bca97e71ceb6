import axios from "axios";

const api = axios.create({
  baseURL: "http://72.60.206.114:3000",
  headers: {
    Authorization: "Bearer ak_live_123456",
    "Content-Type": "application/json"
  }
});

const me = await api.get("/api/me");
console.log(me.data);
