// The adapters' side of the pipe, in Node: the twin of python/serve.py, which says what an adapter is.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const folder = process.env.CLIENTS_NODE;

// The packages lie where `./just --ensure clients` put them, not beside this file.
export const load = createRequire(join(folder, "package.json"));

const { z } = load("zod");

// What structured answers are parsed into.
export const Fox = z.object({ name: z.string(), legs: z.number().int() });

// The result of a tool, for that call.
export function resultOf(order, callId) {
  return JSON.parse(JSON.stringify(order.result).replace("CALL_ID", callId));
}

// What the driver looks at. `usage` is null, or numbers by name.
export function outcome(text, usage, more = {}) {
  return { text, usage, call: null, parsed: null, ...more };
}

// An error as the client raises it.
function refusal(error) {
  const types = [];
  for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) types.push(kind.name);
  return { error: { types, status: error.status ?? null, message: error.stack } };
}

export class Adapter {
  constructor(base) {
    this.base = base;
    this.clients = new Map();
  }

  // One client for all orders that are alike, as programs have it.
  keptClient(order) {
    const kind = JSON.stringify([order.key, order.retries, order.headers]);
    if (!this.clients.has(kind)) this.clients.set(kind, this.client(order));
    return this.clients.get(kind);
  }

  // One request; the outcome, and the client's own object of the answer.
  async ask(order, client, given) {
    const answer = await this.call(order, client, given);
    if (!order.stream) return [this.whole(answer), answer];
    const events = [];
    for await (const event of answer) events.push(event);
    return this.streamed(events, answer);
  }

  async run(order) {
    const client = this.keptClient(order);
    if (order.feature === "tools") {
      const [first, answer] = await this.ask(order, client, order.arguments);
      const [second] = await this.ask(order, client, this.withResult(order, answer));
      return [first, second];
    }
    const asked = Array.from({ length: order.times }, () => this.ask(order, client, order.arguments));
    return (await Promise.all(asked)).map(([outcome]) => outcome);
  }
}

// Carries out orders until the driver closes the pipe. `adapters` has one for each API.
export async function serve(name, adapters) {
  const made = {};
  const versions = {};
  const { version } = JSON.parse(readFileSync(join(folder, "node_modules", name, "package.json")));
  for (const [api, Kind] of Object.entries(adapters)) {
    made[api] = new Kind(process.argv[2]);
    versions[api] = version;
  }
  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
  say(versions);
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    try {
      say(await made[order.api].run(order));
    } catch (error) {
      say([refusal(error)]);
    }
  }
}
