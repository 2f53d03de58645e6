// The official Anthropic client for Node: messages.

import { Adapter, Fox, load, outcome, resultOf, serve } from "./serve.mjs";

const Anthropic = load("@anthropic-ai/sdk");
const { zodOutputFormat } = load("@anthropic-ai/sdk/helpers/zod");

class Messages extends Adapter {
  client(order) {
    return new Anthropic({
      baseURL: this.base,
      apiKey: order.key,
      maxRetries: order.retries,
      defaultHeaders: order.headers,
    });
  }

  call(order, client, given) {
    if (order.feature === "structured") {
      return client.messages.parse({ ...given, output_config: { format: zodOutputFormat(Fox) } });
    }
    return order.stream ? client.messages.stream(given) : client.messages.create(given);
  }

  withResult(order, answer) {
    const call = answer.content.find((block) => block.type === "tool_use");
    const said = { role: "assistant", content: answer.content };
    return { ...order.arguments, messages: [...order.arguments.messages, said, resultOf(order, call.id)] };
  }

  whole(message) {
    const { usage } = message;
    const call = message.content.find((block) => block.type === "tool_use");
    const text = message.content.map((block) => block.text ?? "").join("");
    const written = usage.cache_creation_input_tokens;
    const numbers = {
      // The three are disjoint here.
      total: usage.input_tokens + usage.cache_read_input_tokens + written,
      read: usage.cache_read_input_tokens,
      written,
      // A stream has it in its first event alone, which waits for nothing.
      written_1h: usage.cache_creation?.ephemeral_1h_input_tokens ?? null,
      output: usage.output_tokens,
    };
    return outcome(text, numbers, {
      call: call ? { name: call.name, arguments: call.input } : null,
      parsed: message.parsed_output ?? null,
    });
  }

  async streamed(events, stream) {
    const message = await stream.finalMessage();
    return [this.whole(message), message];
  }
}

await serve("@anthropic-ai/sdk", { messages: Messages });
