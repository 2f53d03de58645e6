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
TOOL, MESSAGE, OTHER_MESSAGE, TEXT, PART, OTHER_PART, TOOL_CALL, BOUNDARY = range(0x10, 0x18)


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


def part(v):
    if not isinstance(v, Members):
        return bytes([OTHER_PART]) + value(v)
    own = without(v, "cache_control", "prompt_cache_breakpoint").last()
    if set(own) == {"type", "text"} and own["type"] == "text" and is_string(own["text"]):
        return bytes([TEXT]) + value(own["text"])
    return bytes([PART]) + members(own)


def message(v):
    if not isinstance(v, Members):
        return [bytes([OTHER_MESSAGE]) + value(v) + bytes([BOUNDARY])]
    own = without(v, "cache_control").last()
    blocks = []
    content, calls = own.get("content"), own.get("tool_calls")
    if is_string(content):
        blocks.append(bytes([TEXT]) + value(content))
    elif is_list(content):
        blocks.extend(map(part, content))
    if content is None or blocks:
        own.pop("content", None)
    if is_list(calls):
        blocks.extend(bytes([TOOL_CALL]) + value(without(call, "cache_control")) for call in calls)
    if calls is None or calls and is_list(calls):
        own.pop("tool_calls", None)
    blocks = blocks or [bytes([BOUNDARY])]
    blocks[0] = bytes([MESSAGE]) + members(own) + blocks[0]
    return blocks


def hashes(request, params):
    top = request.last()
    start = {name: top[name] for name in params if top.get(name) is not None}
    blocks = []
    for name in ("tools", "messages"):
        start.pop(name, None)
        given = top.get(name)
        if is_list(given) and given:
            for v in given:
                if name == "tools":
                    blocks.append(bytes([TOOL]) + value(without(v, "cache_control")))
                else:
                    blocks.extend(message(v))
        elif given is not None:
            start[name] = given
    link = blake3.blake3(value("prompt-cache-prefix/1") + members(start)).digest()
    for block in blocks:
        link = blake3.blake3(link + block).digest()
        yield link.hex()


def main():
    with open("prefix.json", encoding="utf-8") as file:
        lines = file.read()
    # Requests stay as spelled in the file: only the hashes are replaced.
    for entry, raw in zip(json.loads(lines), read(lines)):
        expected = list(hashes(raw.last()["request"], entry["params"]))
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
