// The official OpenAI client for Node: chat completions, responses, completions.

import { Adapter, Fox, load, outcome, resultOf, serve } from "./serve.mjs";

const OpenAI = load("openai");
const { zodResponseFormat, zodTextFormat } = load("openai/helpers/zod");

class OpenAi extends Adapter {
  client(order) {
    return new OpenAI({
      baseURL: `${this.base}/v1`,
      apiKey: order.key,
      maxRetries: order.retries,
      defaultHeaders: order.headers,
    });
  }
}

function usageOfChoices(usage) {
  return {
    total: usage.prompt_tokens,
    read: usage.prompt_tokens_details.cached_tokens,
    written: usage.prompt_tokens_details.cache_write_tokens,
    written_1h: usage.cache_creation.ephemeral_1h_input_tokens,
    output: usage.completion_tokens,
  };
}

// Arguments that ask for a stream, in chat and in completions.
function streaming(order) {
  if (!order.stream) return {};
  return { stream: true, ...(order.usage && { stream_options: { include_usage: true } }) };
}

// How many chunks have no choice: a client that did not ask for usage must see none.
function bare(chunks) {
  return { bare_chunks: chunks.filter((chunk) => !chunk.choices.length).length };
}

class Chat extends OpenAi {
  call(order, client, given) {
    const { completions } = client.chat;
    if (order.feature === "structured") {
      return completions.parse({ ...given, response_format: zodResponseFormat(Fox, "fox") });
    }
    if (order.stream) return completions.stream({ ...given, ...streaming(order) });
    return completions.create(given);
  }

  withResult(order, answer) {
    const { messages } = order.arguments;
    const { message } = answer.choices[0];
    const result = resultOf(order, message.tool_calls[0].id);
    return { ...order.arguments, messages: [...messages, message, result] };
  }

  whole(completion) {
    const { message } = completion.choices[0];
    const call = message.tool_calls?.[0]?.function;
    return outcome(message.content, completion.usage ? usageOfChoices(completion.usage) : null, {
      call: call ? { name: call.name, arguments: JSON.parse(call.arguments) } : null,
      parsed: message.parsed ?? null,
    });
  }

  async streamed(chunks, stream) {
    const completion = await stream.finalChatCompletion();
    return [{ ...this.whole(completion), ...bare(chunks) }, completion];
  }
}

class Responses extends OpenAi {
  call(order, client, given) {
    if (order.feature === "structured") {
      return client.responses.parse({ ...given, text: { format: zodTextFormat(Fox, "fox") } });
    }
    if (order.stream) return client.responses.stream(given);
    return client.responses.create(given);
  }

  withResult(order, answer) {
    const call = answer.output.find((item) => item.type === "function_call");
    // Only the parsed kind of answer has it.
    const { parsed_arguments: _, ...said } = call;
    return { ...order.arguments, input: [...order.arguments.input, said, resultOf(order, call.call_id)] };
  }

  whole(response) {
    const { usage } = response;
    const call = response.output.find((item) => item.type === "function_call");
    const numbers = {
      total: usage.input_tokens,
      read: usage.input_tokens_details.cached_tokens,
      written: usage.input_tokens_details.cache_write_tokens,
      output: usage.output_tokens,
    };
    return outcome(response.output_text, numbers, {
      call: call ? { name: call.name, arguments: JSON.parse(call.arguments) } : null,
      parsed: response.output_parsed ?? null,
    });
  }

  async streamed(events, stream) {
    const response = await stream.finalResponse();
    return [this.whole(response), response];
  }
}

class Completions extends OpenAi {
  call(order, client, given) {
    return client.completions.create({ ...given, ...streaming(order) });
  }

  whole(completion) {
    return outcome(completion.choices[0].text, usageOfChoices(completion.usage));
  }

  streamed(chunks) {
    const text = chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("");
    const usages = chunks.map((chunk) => chunk.usage).filter(Boolean);
    if (usages.length > 1) throw new Error(`usage comes more than once: ${JSON.stringify(usages)}`);
    return [outcome(text, usages.length ? usageOfChoices(usages[0]) : null, bare(chunks)), chunks];
  }
}

await serve("openai", { chat: Chat, responses: Responses, completions: Completions });
