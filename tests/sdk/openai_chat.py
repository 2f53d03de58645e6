"""The official OpenAI client against a running stack: written, then read, streamed and whole.

Usage: python openai_chat.py STACK_BINARY. Starts `STACK_BINARY up` on free ports; exits 0 only if
every number is right. Prints one line per check.
"""

import sys

import openai

import stack


def marked(**cache_control):
    part = {"type": "text", "text": stack.PREFIX, "cache_control": {"type": "ephemeral", **cache_control}}
    return [{"role": "system", "content": [part]}, {"role": "user", "content": "Say hello."}]


def read_and_written(usage):
    details = usage.prompt_tokens_details
    assert details.cached_tokens == usage.cache_read_input_tokens, usage
    assert details.cache_write_tokens == usage.cache_creation_input_tokens, usage
    assert details.cached_tokens + details.cache_write_tokens <= usage.prompt_tokens, usage
    return details.cached_tokens, details.cache_write_tokens


def check(client):
    def whole():
        return client.chat.completions.create(model="demo", messages=marked(ttl="1h")).usage

    usage = whole()
    read, written = read_and_written(usage)
    assert (read, usage.cache_creation["ephemeral_1h_input_tokens"]) == (0, written), usage
    assert written > 1024, usage
    assert stack.until_read(lambda: read_and_written(whole())) == (written, 0)
    print(f"whole: {written} tokens written, then read")

    def streamed():
        chunks = list(
            client.chat.completions.create(
                model="demo",
                messages=marked(),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert len(usages) == 1 and chunks[-1].usage, chunks[-1]
        return usages[0]

    assert stack.until_read(lambda: read_and_written(streamed())) == (written, 0)
    print("streamed: the last chunk says what was read")

    chunks = client.chat.completions.create(model="demo", messages=marked(), stream=True)
    # What most programs do; a chunk that carries only usage would end them.
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text, "an empty answer"
    print("streamed without usage: every chunk has a choice")

    try:
        client.chat.completions.create(model="demo", messages=marked(ttl="2h"))
    except openai.BadRequestError as refusal:
        assert refusal.code == "invalid_cache_control", refusal
        assert refusal.param == "messages[0].content[0].cache_control", refusal
        print(f"refused: {refusal.message}")
    else:
        raise AssertionError("a bad ttl was not refused")


def main():
    with stack.running(sys.argv[1]) as base:
        check(openai.OpenAI(base_url=f"{base}/v1", api_key="sk-sdk-test", max_retries=0))


if __name__ == "__main__":
    main()
