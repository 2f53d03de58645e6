"""The official Anthropic client: messages."""

import anthropic

import serve


class Messages(serve.Adapter):
    package = "anthropic"

    def client(self, order):
        kind = anthropic.AsyncAnthropic if order["async"] else anthropic.Anthropic
        return kind(
            base_url=self.base,
            api_key=order["key"],
            max_retries=order["retries"],
            default_headers=order["headers"],
        )

    def with_result(self, order, answer):
        call = next(block for block in answer.content if block.type == "tool_use")
        said = {"role": "assistant", "content": answer.content}
        result = serve.result_of(order, call.id)
        arguments = order["arguments"]
        return {**arguments, "messages": [*arguments["messages"], said, result]}

    async def ask(self, order, client, arguments):
        if not order["stream"]:
            return await super().ask(order, client, arguments)
        manager = client.messages.stream(**arguments)
        if order["async"]:
            async with manager as stream:
                message = await stream.get_final_message()
        else:
            with manager as stream:
                message = stream.get_final_message()
        return self.whole(message), message

    def call(self, order, client, arguments):
        if order["feature"] == "structured":
            return client.messages.parse(**arguments, output_format=serve.Fox)
        return client.messages.create(**arguments)

    def whole(self, message):
        usage = message.usage
        written = usage.cache_creation_input_tokens
        # A stream has it in its first event alone, which waits for nothing.
        tiers = usage.cache_creation
        if tiers:
            by_tier = tiers.ephemeral_5m_input_tokens + tiers.ephemeral_1h_input_tokens
            assert written == by_tier, usage
        calls = [block for block in message.content if block.type == "tool_use"]
        parsed = getattr(message, "parsed_output", None)
        return serve.outcome(
            "".join(block.text for block in message.content if block.type == "text"),
            {
                # The three are disjoint here.
                "total": usage.input_tokens + usage.cache_read_input_tokens + written,
                "read": usage.cache_read_input_tokens,
                "written": written,
                "written_1h": tiers and tiers.ephemeral_1h_input_tokens,
                "output": usage.output_tokens,
            },
            call=calls and {"name": calls[0].name, "arguments": calls[0].input},
            parsed=parsed and parsed.model_dump(),
        )


if __name__ == "__main__":
    serve.serve({"messages": Messages})
