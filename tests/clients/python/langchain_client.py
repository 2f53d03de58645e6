"""LangChain's chat models: ChatOpenAI on chat completions and on responses, ChatAnthropic. They take
messages as dictionaries, which are those of the clients below them.
"""

import functools
import operator

import langchain_anthropic
import langchain_openai

import serve

WRITTEN = ("cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


class LangChain(serve.Adapter):
    """What all chat models have in common."""

    def call(self, order, client, arguments):
        model = client
        arguments = dict(arguments)
        # The model knows its name.
        del arguments["model"]
        messages = arguments.pop("messages")
        if system := arguments.pop("system", None):
            messages = [{"role": "system", "content": system}, *messages]
        if tools := arguments.pop("tools", None):
            model = model.bind_tools(tools)
        if order["feature"] == "structured":
            model = model.with_structured_output(serve.Fox, include_raw=True)
        if order["stream"]:
            ask = model.astream if order["async"] else model.stream
        else:
            ask = model.ainvoke if order["async"] else model.invoke
        return ask(messages, **arguments)

    def with_result(self, order, answer):
        arguments = order["arguments"]
        (call,) = answer.tool_calls
        result = serve.result_of(order, call["id"])
        return {**arguments, "messages": [*arguments["messages"], answer, result]}

    def whole(self, answer):
        parsed = None
        if isinstance(answer, dict):
            parsed = answer["parsed"].model_dump()
            answer = answer["raw"]
        usage = answer.usage_metadata
        details = usage["input_token_details"]
        calls = answer.tool_calls
        return serve.outcome(
            answer.text,
            {
                "total": usage["input_tokens"],
                "read": details["cache_read"],
                "written": sum(details.get(name) or 0 for name in WRITTEN),
                "output": usage["output_tokens"],
            },
            call=calls and {"name": calls[0]["name"], "arguments": calls[0]["args"]},
            parsed=parsed,
        )

    def streamed(self, chunks):
        answer = functools.reduce(operator.add, chunks)
        return self.whole(answer), answer


class ChatOpenAi(LangChain):
    package = "langchain-openai"
    responses = False

    def client(self, order):
        return langchain_openai.ChatOpenAI(
            model="demo",
            base_url=f"{self.base}/v1",
            api_key=order["key"],
            max_retries=order["retries"],
            default_headers=order["headers"],
            stream_usage=order["usage"],
            use_responses_api=self.responses,
        )


class ChatOpenAiResponses(ChatOpenAi):
    """Messages are spelled as in chat completions here, too."""

    responses = True


class ChatAnthropic(LangChain):
    package = "langchain-anthropic"

    def client(self, order):
        return langchain_anthropic.ChatAnthropic(
            model="demo",
            base_url=self.base,
            api_key=order["key"],
            max_retries=order["retries"],
            default_headers=order["headers"],
            max_tokens=64,
        )


if __name__ == "__main__":
    serve.serve({"chat": ChatOpenAi, "responses": ChatOpenAiResponses, "messages": ChatAnthropic})
