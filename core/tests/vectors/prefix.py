#!/usr/bin/env python3
"""The prefix hashes of docs/prefix-hash.md, straight from its text, in Python.

Run in this directory; needs the package `blake3`. Without arguments it checks prefix.json, with
`--write` it fills in the hashes of entries. It shares no code with the Rust implementation, so
that the two check each other and the document.
"""

import json
import sys

import blake3

NULL, FALSE, TRUE, NUMBER, STRING, ARRAY, OBJECT, END = range(8)
TOOL, MESSAGE, OTHER_MESSAGE, TEXT, PART, OTHER_PART, TOOL_CALL, BOUNDARY, SYSTEM = range(0x10, 0x19)


class Number(str):
    """A number as spelled."""


class Members(list):
    """An object: its (name, value) pairs as given."""

    def last(self):
        return dict(self)


def read(text):
    return json.loads(text, object_pairs_hook=Members, parse_int=Number, parse_float=Number)


def sized(token, raw):
    return bytes([token]) + len(raw).to_bytes(4, "little") + raw


def value(v):
    if v is None:
        return bytes([NULL])
    if isinstance(v, bool):
        return bytes([TRUE if v else FALSE])
    if isinstance(v, Number):
        return sized(NUMBER, v.encode())
    if isinstance(v, str):
        return sized(STRING, json.dumps(v, ensure_ascii=False)[1:-1].encode())
    if isinstance(v, Members):
        return bytes([OBJECT]) + pairs(v)
    return bytes([ARRAY]) + b"".join(map(value, v)) + bytes([END])


def pairs(members):
    return b"".join(value(name) + value(v) for name, v in members) + bytes([END])


def members(by_name):
    return pairs(sorted(by_name.items(), key=lambda pair: pair[0].encode()))


def without(v, *names):
    if isinstance(v, Members):
        return Members(pair for pair in v if pair[0] not in names)
    return v


def is_list(v):
    return isinstance(v, list) and not isinstance(v, Members)


def is_string(v):
    return isinstance(v, str) and not isinstance(v, Number)


class Api:
    """Where an API keeps what is hashed; the members of chat completions unless said otherwise."""

    tag = "prompt-cache-prefix/1"
    messages, system, more = "messages", None, "tool_calls"
    text_types = ("text",)
    message_markers = ("cache_control",)
    part_markers = ("cache_control", "prompt_cache_breakpoint")
    params = ()


class Messages(Api):
    tag = Api.tag + "/messages"
    system, more = "system", None
    message_markers = ()
    part_markers = ("cache_control",)


class Responses(Api):
    tag = Api.tag + "/responses"
    messages, system, more = "input", "instructions", "output"
    text_types = ("input_text", "output_text")
    params = ("reasoning",)


class Completions(Api):
    tag = Api.tag + "/completions"
    params = ("suffix",)


APIS = {"chat": Api, "messages": Messages, "responses": Responses, "completions": Completions}


def part(v, api):
    if not isinstance(v, Members):
        return bytes([OTHER_PART]) + value(v)
    own = without(v, *api.part_markers).last()
    if set(own) == {"type", "text"} and own["type"] in api.text_types and is_string(own["text"]):
        return bytes([TEXT]) + value(own["text"])
    if api is Messages and own.get("type") == "tool_result" and is_list(own.get("content")):
        own["content"] = [without(inner, "cache_control") for inner in own["content"]]
    return bytes([PART]) + members(own)


def parts(v, api):
    """The blocks of content: of a string or of an array's elements."""
    if is_string(v):
        return [bytes([TEXT]) + value(v)]
    return [part(element, api) for element in v] if is_list(v) else []


def more_blocks(v, api):
    if api is Responses:
        return [bytes([TOOL_CALL]) + block for block in parts(v, api)]
    given = v if is_list(v) else []
    return [bytes([TOOL_CALL]) + value(without(call, "cache_control")) for call in given]


def message(v, api):
    if not isinstance(v, Members):
        return [bytes([OTHER_MESSAGE]) + value(v) + bytes([BOUNDARY])]
    own = without(v, *api.message_markers).last()
    blocks = parts(own.get("content"), api)
    if own.get("content") is None or blocks:
        own.pop("content", None)
    if api.more:
        more = more_blocks(own.get(api.more), api)
        if own.get(api.more) is None or more:
            own.pop(api.more, None)
        blocks += more
    blocks = blocks or [bytes([BOUNDARY])]
    blocks[0] = bytes([MESSAGE]) + members(own) + blocks[0]
    return blocks


def conversation(given, api):
    if api is Responses and is_string(given):
        return [bytes([MESSAGE]) + members({"role": "user"}) + bytes([TEXT]) + value(given)]
    return [block for v in given for block in message(v, api)] if is_list(given) else []


def hashes(request, params, api):
    top = request.last()
    names = [*params, *api.params]
    start = {name: top[name] for name in names if top.get(name) is not None}
    # The markers of the request itself are no parameters.
    start.pop("cache_control", None), start.pop("prompt_cache_options", None)
    blocks = []
    if api is Completions:
        start.pop("prompt", None)
        given = top.get("prompt")
        blocks = [] if given is None else parts(given, api) if is_string(given) else [part(given, api)]
    else:
        tools = top.get("tools")
        tool_blocks = [
            bytes([TOOL]) + value(without(v, "cache_control")) for v in (tools if is_list(tools) else [])
        ]
        system = top.get(api.system) if api.system else None
        found = [
            ("tools", tools, tool_blocks),
            (api.system, system, [bytes([SYSTEM]) + block for block in parts(system, api)]),
            (api.messages, top.get(api.messages), conversation(top.get(api.messages), api)),
        ]
        for name, given, own in found:
            start.pop(name, None)
            if given is not None and not own:
                start[name] = given
            blocks += own
    link = blake3.blake3(value(api.tag) + members(start)).digest()
    for block in blocks:
        link = blake3.blake3(link + block).digest()
        yield link.hex()


def main():
    with open("prefix.json", encoding="utf-8") as file:
        lines = file.read()
    # Requests stay as spelled in the file: only the hashes are replaced.
    for entry, raw in zip(json.loads(lines), read(lines)):
        expected = list(hashes(raw.last()["request"], entry["params"], APIS[entry.get("api", "chat")]))
        if "--write" in sys.argv:
            old = '"hashes": ' + json.dumps(entry["hashes"]) + "}"
            at = lines.index(old, lines.index(json.dumps(entry["name"], ensure_ascii=False)))
            lines = lines[:at] + '"hashes": ' + json.dumps(expected) + "}" + lines[at + len(old):]
        elif expected != entry["hashes"]:
            sys.exit(f"differs: {entry['name']}")
    if "--write" in sys.argv:
        with open("prefix.json", "w", encoding="utf-8") as file:
            file.write(lines)


if __name__ == "__main__":
    main()
