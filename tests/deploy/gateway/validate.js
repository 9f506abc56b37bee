// Reads a resource, and writes what is wrong with it: null, or what the model says.
import { readFileSync } from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { AnalysisTemplate } from "@kubernetes-models/argo-rollouts/argoproj.io/v1alpha1/AnalysisTemplate";
import { Rollout } from "@kubernetes-models/argo-rollouts/argoproj.io/v1alpha1/Rollout";

const models = { AnalysisTemplate, HTTPRoute, Rollout };
let wrong = null;
try {
  const resource = JSON.parse(readFileSync(0));
  new models[resource.kind](resource).validate();
} catch (error) {
  wrong = error.message;
}
console.log(JSON.stringify(wrong));
