// Node.js with its own http module. The Redis client sends the commands of one turn together.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { hostname } from "node:os";
import { createClient } from "redis";

const { NAME = "world", PORT, REDIS_URL, TLS_CERT, TLS_KEY } = process.env;
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
const escape = (text) => text.replace(/[&<>"']/g, (character) => ESCAPES[character]);
const start = `<h3>Hello ${escape(NAME)}!</h3><b>Hostname:</b> ${escape(hostname())}<br/><b>Visits:</b> `;

const redis = createClient({
  url: REDIS_URL,
  disableOfflineQueue: true,
  socket: { connectTimeout: 2000 },
  commandOptions: { timeout: 2000 },
});
redis.on("error", (error) => console.error(error.message));
await redis.connect();

async function hello(request, response) {
  let visits;
  try {
    visits = await redis.incr("counter");
  } catch {
    visits = "<i>cannot connect to Redis, counter disabled</i>";
  }
  const page = start + visits;
  response.writeHead(200, {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Length": Buffer.byteLength(page),
  });
  response.end(page);
}

const server = TLS_CERT
  ? https.createServer({ cert: readFileSync(TLS_CERT), key: readFileSync(TLS_KEY) }, hello)
  : http.createServer(hello);
server.listen(Number(PORT), "127.0.0.1");
