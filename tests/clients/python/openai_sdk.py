"""The official OpenAI client: chat completions, responses, completions."""

import json

import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

import serve


class OpenAi(serve.Adapter):
    package = "openai"

    def client(self, order):
        kind = openai.AsyncOpenAI if order["async"] else openai.OpenAI
        return kind(
            base_url=f"{self.base}/v1",
            api_key=order["key"],
            max_retries=order["retries"],
            default_headers=order["headers"],
        )


def streaming(order):
    """Arguments that ask for a stream, in chat and in completions."""
    if not order["stream"]:
        return {}
    options = {"stream_options": {"include_usage": True}} if order["usage"] else {}
    return {"stream": True, **options}


def usage_of_choices(usage):
    details = usage.prompt_tokens_details
    assert details.cached_tokens == usage.cache_read_input_tokens, usage
    assert details.cache_write_tokens == usage.cache_creation_input_tokens, usage
    return {
        "total": usage.prompt_tokens,
        "read": details.cached_tokens,
        "written": details.cache_write_tokens,
        "written_1h": usage.cache_creation["ephemeral_1h_input_tokens"],
        "output": usage.completion_tokens,
    }


class Chat(OpenAi):
    def with_result(self, order, answer):
        message = answer.choices[0].message
        said = message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True)
        # Only the parsed kind of answer has it.
        for call in said["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
        result = serve.result_of(order, message.tool_calls[0].id)
        arguments = order["arguments"]
        return {**arguments, "messages": [*arguments["messages"], said, result]}

    def call(self, order, client, arguments):
        if order["feature"] == "structured":
            return client.chat.completions.parse(**arguments, response_format=serve.Fox)
        return client.chat.completions.create(**arguments, **streaming(order))

    def usage(self, usage):
        return usage_of_choices(usage)

    def whole(self, completion):
        message = completion.choices[0].message
        call = message.tool_calls[0].function if message.tool_calls else None
        parsed = getattr(message, "parsed", None)
        return serve.outcome(
            message.content,
            completion.usage and self.usage(completion.usage),
            call=call and {"name": call.name, "arguments": json.loads(call.arguments)},
            parsed=parsed and parsed.model_dump(),
        )

    def streamed(self, chunks):
        state = ChatCompletionStreamState()
        for chunk in chunks:
            state.handle_chunk(chunk)
        completion = state.get_final_completion()
        return {**self.whole(completion), **bare(chunks)}, completion


class Responses(OpenAi):
    def with_result(self, order, answer):
        call = next(item for item in answer.output if item.type == "function_call")
        said = call.model_dump(exclude_none=True, exclude={"parsed_arguments"})
        result = serve.result_of(order, call.call_id)
        arguments = order["arguments"]
        return {**arguments, "input": [*arguments["input"], said, result]}

    def call(self, order, client, arguments):
        if order["feature"] == "structured":
            return client.responses.parse(**arguments, text_format=serve.Fox)
        return client.responses.create(**arguments, stream=order["stream"])

    def whole(self, response):
        usage = response.usage
        calls = [item for item in response.output if item.type == "function_call"]
        parsed = getattr(response, "output_parsed", None)
        return serve.outcome(
            response.output_text,
            {
                "total": usage.input_tokens,
                "read": usage.input_tokens_details.cached_tokens,
                "written": usage.input_tokens_details.cache_write_tokens,
                "output": usage.output_tokens,
            },
            call=calls and {"name": calls[0].name, "arguments": json.loads(calls[0].arguments)},
            parsed=parsed and parsed.model_dump(),
        )

    def streamed(self, events):
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        response = events[-1].response
        assert "".join(deltas) == response.output_text, events
        return self.whole(response), response


class Completions(OpenAi):
    def call(self, order, client, arguments):
        return client.completions.create(**extra(arguments), **streaming(order))

    def usage(self, usage):
        return usage_of_choices(usage)

    def whole(self, completion):
        return serve.outcome(completion.choices[0].text, self.usage(completion.usage))

    def streamed(self, chunks):
        text = "".join(chunk.choices[0].text or "" for chunk in chunks if chunk.choices)
        usages = [usage for chunk in chunks if (usage := getattr(chunk, "usage", None))]
        assert len(usages) <= 1, usages
        usage = self.usage(usages[0]) if usages else None
        return serve.outcome(text, usage, **bare(chunks)), chunks


def extra(arguments):
    """A mark at the top is no argument of the client's."""
    arguments = dict(arguments)
    mark = arguments.pop("cache_control")
    return {**arguments, "extra_body": {"cache_control": mark}}


def bare(chunks):
    """How many chunks have no choice: a client that did not ask for usage must see none."""
    return {"bare_chunks": sum(not chunk.choices for chunk in chunks)}


if __name__ == "__main__":
    serve.serve({"chat": Chat, "responses": Responses, "completions": Completions})
