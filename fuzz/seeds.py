"""Writes the committed corpus, fuzz/corpus/TARGET/*, from the scenarios, vectors and transcripts of
core's tests. Files of other names (inputs that a fuzzer found) stay.

An input is a body, a zero byte, and knobs (see fuzz/src/input.rs and setup.rs).
"""

import json
import pathlib

FUZZ = pathlib.Path(__file__).resolve().parent
TESTS = FUZZ.parent / "core" / "tests"

# flags, three chunk sizes, event_bytes_max, held_bytes_max / 2, moment, the four token counts
KNOBS = [
    [],
    [0b0001, 7, 1, 64],
    [0b1000, 50, 3, 1],
    [0b1001, 1, 1, 2, 200, 60, 128],
    [0b1110, 13, 200, 5, 0, 0, 77],
    [0b0110, 3, 3, 3, 100, 100],
]

USAGE = b'"usage":{"prompt_tokens":1400}'

# Shapes that no scenario has.
STREAMS = [
    b'\n\n\xef\xbb\xbfdata: {' + USAGE + b"}\n\n",
    b"id: 1\n\xef\xbb\xbfevent: error\n\n\xef\xbb\xbfdata: [DONE]\n\n",
    b'data: {\n\xef\xbb\xbfdata: "a":1,\ndata: ' + USAGE + b"}\r\n\r\n",
    b"event:error\rdata\rdata:\rdata:{" + USAGE + b"}\r\r",
    b"retry: 1\nid\n: c\ndata: [DONE]\ndata: {" + USAGE + b"}\n\ndata: {" + USAGE + b"}",
    b'data: {"choices":[{"finish_reason":"stop"}],' + USAGE + b',"error":[1]}\n\n',
    b'data: {"":{' + USAGE + b"}}\n\n",
    b'data: {"a":' + b"[" * 127 + b"]" * 127 + b"," + USAGE + b"}\n\n",
    b'data: {"a":' + b"[" * 128 + b"]" * 128 + b"," + USAGE + b"}\n\n",
]
BODIES = [
    b'{\n  "usage" : {\n    "prompt_tokens" : 1200.0\n  },\n  "x" : [ 1e3, { "usage" : { } } ]\n}\n',
    b'{"us\\u0061ge":{"prompt_tokens":12},"usage":null,"error":null,"a":"\\\\\\"usage\\":{}"}',
    b'{"error":[1],' + USAGE + b"}",
    b'{"error":"x","a":-0.5e+3,"b":tru}',
    b'{"error":false,"error":{},"usage":[{}]}',
    b"{" + USAGE + b"} x",
    b"{" + USAGE,
    b"{" + USAGE + b',"a":' + b"[" * 127 + b"]" * 127 + b"}",
    b"{" + USAGE + b',"a":' + b"[" * 128 + b"]" * 128 + b"}",
    b"upstream connect error",
    b'{"":{' + USAGE + b'},"usage":null}',
]
REQUESTS = [
    b'{"tools":' + b"[" * 126 + b"]" * 126 + b"}",
    b'{"tools":' + b"[" * 127 + b"]" * 127 + b"}",
    b'{"a":1e309,"b":0e999,"c":123456789012345678901234567890}',
    b'{"stream":true,"stream_options":{"include_usage":true,"include_usage":false},"cache_salt":1}',
    b'{"messages":[{"content":"\\ud83d\\ude00\\ud83d","x":"\xc3\xa9\xff"}]}',
]

# Of requests whose scenario file is about one API: its number in the target.
API_OF = {"messages": 1, "responses": 2, "completions": 3}

HEADS = [
    b"/v1/chat/completions?cacheBreakpoint=lastUserMessage&a=b\nBearer sk-1\napplication/json\n",
    b"/m?a&cacheBreakpoint=all&cacheBreakpoint=lastUserMessage#?\nbearer\tx \nText/Event-Stream; charset=utf-8\n",
    b"//v1/messages/?cacheBreakpoint\nBasic eA==\n;\n",
]
HASH = b'"' + b"0a" * 32 + b'"'
WIRE = [
    b'{"v":1,"api":"messages","principal":' + HASH + b',"model":"m","breakpoints":[{"block":3,"tier":"5m"}],'
    b'"candidates":[{"block":3,"hash":' + HASH + b"}]}",
    b'{"status":"ok","tokenizer_version":"v","split":{"read":5,"creation":{"5m":1,"24h":0}},"epoch":"e",'
    b'"writes":[{"hash":' + HASH + b',"tokens":7,"tier":"1h"}],"short_of_floor":1,"counted_prompt_tokens":2,'
    b'"leases":[{"hash":' + HASH + b',"tokens":7,"tier":"5m","ttl_ms":1}]}',
    b'{"status":"text_needed","read":7}',
    b'{"status":"inactive","reason":"unknown_principal"}',
    b'{"v":1,"commits":[{"principal":' + HASH + b',"model":"m","tokenizer_version":"v","age_ms":1,'
    b'"prompt_tokens":9,"writes":[]}],"reads":[{"principal":' + HASH + b',"model":"m",'
    b'"tokenizer_version":"v","age_ms":1,"hashes":[' + HASH + b'],"read_tokens":4}]}',
    b'{"written":1,"dropped":0,"reads_dropped":0,"epoch":"e"}',
    b'{"v":1,"epoch":"e","models":[{"model":"m","tiers":["5m","1h"],"default_tier":"5m","auto":"1h",'
    b'"min_prefix_tokens":1024,"tokenizer_version":"t"}]}',
    b'{"index_cluster":"c","fingerprint_key":"k","tiers":["5m"],"principal":["x_api_key",{"header":"x-t"}]}',
]


def raw_values(path, key):
    """The text of each value of that key, spelling and duplicates kept."""
    text = path.read_text()
    decoder = json.JSONDecoder()
    at = 0
    while (at := text.find(f'"{key}":', at)) >= 0:
        start = at + len(key) + 3
        while text[start] in " \n":
            start += 1
        _, end = decoder.raw_decode(text, start)
        yield text[start:end].encode()
        at = end


def tail(knobs):
    return bytes([0]) + bytes(knob + 1 for knob in knobs)


def usage_of(body):
    start = body.find(b'"usage":{')
    if start < 0:
        return None
    text = body[start + 8 :].decode(errors="replace")
    _, end = json.JSONDecoder().raw_decode(text)
    return text[:end].encode()


def write(target, name, data):
    assert len(data) <= 4096, (target, name, len(data))
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def main():
    for old in FUZZ.glob("corpus/*/seed-*"):
        old.unlink()
    requests = {}
    for path in sorted((TESTS / "scenarios" / "request").glob("*.json")):
        for i, body in enumerate(raw_values(path, "body")):
            requests[f"{path.stem}-{i:02}"] = body
    for i, body in enumerate(raw_values(TESTS / "vectors" / "prefix.json", "request")):
        requests[f"vector-{i:02}"] = body
    requests.update({f"shape-{i:02}": body for i, body in enumerate(REQUESTS)})
    for i, (name, body) in enumerate(requests.items()):
        write("scanner", name, body)
        write("apis", name, body + tail([i % 3]))
        write("splice", name, body + tail([i % 8]))
        write("plan", name, body + tail([API_OF.get(name.split("-")[0], i % 4), i * 5 % 255]))
        write("prefix", name, body + tail((i * 37 + k * 11) % 255 for k in range(34)))

    for i, head in enumerate(HEADS):
        for k, json_text in enumerate(WIRE):
            write("outside", f"{i}-{k}", head + json_text)

    streams, bodies = {}, {}
    for path in sorted((TESTS / "transcripts").glob("*.sse")):
        text = path.read_bytes()
        streams[path.stem] = text
        streams[path.stem + "-crlf"] = text.replace(b"\n", b"\r\n")
    for path in sorted((TESTS / "scenarios" / "response").glob("*.json")):
        scenario = json.loads(path.read_text())
        known = streams if scenario["kind"] == "sse" else bodies
        known["scenario-" + path.stem] = scenario["input"].encode()
    streams.update({f"shape-{i:02}": stream for i, stream in enumerate(STREAMS)})
    bodies.update({f"shape-{i:02}": body for i, body in enumerate(BODIES)})
    usages = {
        "empty": b"{}",
        "null-details": b'{"prompt_tokens":2000,"prompt_tokens_details":null}',
        "all": b'{ "prompt_tokens" : 2000 , "prompt_tokens_details":{"cached_tokens":1,"audio_tokens":0,'
        b'"cache_write_tokens":2},"cache_read_input_tokens":1,"cache_creation_input_tokens":2,'
        b'"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":1,'
        b'"ephemeral_24h_input_tokens":0} }',
        "twice": b'{"cache_creation":{},"cache_cre\\u0061tion":[],"prompt_tokens":3,"prompt_tokens":100}',
    }
    for kind, known in (("framer", streams), ("locator", bodies)):
        for i, (name, body) in enumerate(known.items()):
            if (usage := usage_of(body)) is not None:
                usages.setdefault(name, usage)
            for k in {i % len(KNOBS), (i + 2) % len(KNOBS)}:
                write(kind, f"{name}-{k}", body[:4000] + tail(KNOBS[k]))
    for i, (name, usage) in enumerate(usages.items()):
        for k in {i % len(KNOBS), (i + 3) % len(KNOBS)}:
            write("rewrite", f"{name}-{k}", usage + tail(KNOBS[k]))


main()
