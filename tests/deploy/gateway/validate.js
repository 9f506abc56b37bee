// Reads an HTTPRoute, and writes what is wrong with it: null, or what the model says.
import { readFileSync } from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";

let wrong = null;
try {
  new HTTPRoute(JSON.parse(readFileSync(0))).validate();
} catch (error) {
  wrong = error.message;
}
console.log(JSON.stringify(wrong));
