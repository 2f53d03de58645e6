"""The official Anthropic client against a running stack: written, then read, streamed and whole.

Usage: python anthropic_messages.py STACK_BINARY. Starts `STACK_BINARY up` on free ports; exits 0
only if every number is right. Prints one line per check.
"""

import sys

import anthropic

import stack


def marked(**ttl):
    return [{"type": "text", "text": stack.PREFIX, "cache_control": {"type": "ephemeral", **ttl}}]


def read_and_written(usage):
    creation = usage.cache_creation
    tiers = creation.ephemeral_5m_input_tokens + creation.ephemeral_1h_input_tokens
    assert tiers == usage.cache_creation_input_tokens, usage
    # The three are disjoint here.
    assert usage.input_tokens > 0, usage
    return usage.cache_read_input_tokens, usage.cache_creation_input_tokens


def tool_turn():
    """A marked tool, its call, and a marked result."""
    mark = {"type": "ephemeral"}
    tool = {"name": "fox", "description": stack.PREFIX, "input_schema": {"type": "object"}}
    call = {"type": "tool_use", "id": "t1", "name": "fox", "input": {}}
    text = {"type": "text", "text": "It jumps."}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text], "cache_control": mark}
    return {
        "tools": [dict(tool, cache_control=mark)],
        "messages": [
            {"role": "user", "content": "What does it do?"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    }


def check(client):
    ask = {"model": "demo", "max_tokens": 16}
    hello = [{"role": "user", "content": "Say hello."}]

    def whole():
        usage = client.messages.create(**ask, system=marked(ttl="1h"), messages=hello).usage
        return read_and_written(usage)

    usage = client.messages.create(**ask, system=marked(ttl="1h"), messages=hello).usage
    read, written = read_and_written(usage)
    assert (read, usage.cache_creation.ephemeral_1h_input_tokens) == (0, written), usage
    assert written > 1024, usage
    assert stack.until_read(whole) == (written, 0)
    print(f"whole: {written} tokens written, then read, beside {usage.input_tokens} others")

    def streamed(**request):
        with client.messages.stream(**ask, **request) as stream:
            assert "".join(stream.text_stream), "an empty answer"
            return read_and_written(stream.get_final_message().usage)

    hot = {"system": marked(ttl="1h"), "messages": hello}
    assert stack.until_read(lambda: streamed(**hot)) == (written, 0)
    print("streamed: the message ends with what was read")

    read, written = streamed(**tool_turn())
    assert read == 0 and written > 1024, (read, written)
    assert stack.until_read(lambda: streamed(**tool_turn())) == (written, 0)
    print(f"tools: {written} tokens of a tool, its call and its result written, then read")

    try:
        client.messages.create(**ask, system=marked(ttl="2h"), messages=hello)
    except anthropic.BadRequestError as refusal:
        error = refusal.body["error"]
        assert error["type"] == "invalid_request_error", refusal.body
        assert error["message"].startswith("system.0.cache_control.ephemeral.ttl: "), refusal.body
        print(f"refused: {error['message']}")
    else:
        raise AssertionError("a bad ttl was not refused")


def main():
    with stack.running(sys.argv[1]) as base:
        check(anthropic.Anthropic(base_url=base, api_key="sk-sdk-test", max_retries=0))


if __name__ == "__main__":
    main()
