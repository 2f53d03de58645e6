"""LiteLLM as a client library: its providers `openai/`, `anthropic/` and `text-completion-openai/`,
and its Responses. Messages are OpenAI's whatever the provider.
"""

import litellm

import openai_sdk
import serve

litellm.telemetry = False
litellm.suppress_debug_info = True


class LiteLlm:
    """What every call takes: each is a function of the module."""

    package = "litellm"
    path = "/v1"
    # LiteLLM's own; where a client of the vendor's is below it, that one's.
    retries = "num_retries"

    def client(self, order):
        return {
            "api_base": f"{self.base}{self.path}",
            "api_key": order["key"],
            "extra_headers": order["headers"],
            self.retries: order["retries"],
        }

    def whole(self, answer):
        """Its answers to structured requests are text; programs parse it."""
        outcome = super().whole(answer)
        if (outcome["text"] or "").startswith("{"):
            outcome["parsed"] = serve.Fox.model_validate_json(outcome["text"]).model_dump()
        return outcome

    def usage(self, usage):
        details = usage.prompt_tokens_details
        return {
            "total": usage.prompt_tokens,
            "read": details.cached_tokens,
            "written": details.cache_creation_tokens,
            "output": usage.completion_tokens,
        }


class Chat(LiteLlm, openai_sdk.Chat):
    provider = "openai"
    retries = "max_retries"

    def call(self, order, client, arguments):
        ask = litellm.acompletion if order["async"] else litellm.completion
        arguments = {**arguments, **client, **openai_sdk.streaming(order)}
        if order["feature"] == "structured":
            arguments["response_format"] = serve.Fox
        return ask(**{**arguments, "model": f"{self.provider}/demo"})

    def streamed(self, chunks):
        completion = litellm.stream_chunk_builder(chunks)
        return self.whole(completion), completion


class Messages(Chat):
    """Messages are spelled as in chat completions, for this provider, too."""

    provider = "anthropic"
    path = ""
    retries = "num_retries"


class Responses(LiteLlm, openai_sdk.Responses):
    def call(self, order, client, arguments):
        ask = litellm.aresponses if order["async"] else litellm.responses
        arguments = {**arguments, **client, "model": "openai/demo", "stream": order["stream"]}
        if order["feature"] == "structured":
            arguments["text_format"] = serve.Fox
        return ask(**arguments)


class Completions(LiteLlm, openai_sdk.Completions):
    retries = "max_retries"

    def call(self, order, client, arguments):
        ask = litellm.atext_completion if order["async"] else litellm.text_completion
        arguments = {**openai_sdk.extra(arguments), **client, **openai_sdk.streaming(order)}
        return ask(**{**arguments, "model": "text-completion-openai/demo"})


if __name__ == "__main__":
    serve.serve(
        {
            "chat": Chat,
            "messages": Messages,
            "responses": Responses,
            "completions": Completions,
        }
    )
