"""Generated conversations, the same for the same seed: chat requests as the filter sends them on.

Tools and tool calls, images, many scripts, combining marks and emoji, code, JSON, long runs of one
character, and users who type what looks like a model's own markers.
"""

import json
import random

WORDS = """the cache holds a prefix until its time is over and every token counts once please look up
what we wrote yesterday about invoices then compare both tables carefully don't can't we'll they've
I'd it's Zürich naïve façade coöperate 12 345 6789 0.001 3.14159 v1.2.3 GPT-4o snake_case camelCase
HTTPResponse x86_64 https://example.org/a?b=c&d=e user@example.org C++ C# .NET e.g. i.e. U.S.A.""".split()

SCRIPTS = [
    "每个前缀的词元数都和哈希一起保存。", "図書館で本を三冊借りました。", "ｶﾀｶﾅと全角ＡＢＣ１２３",
    "요청이 성공하면 기록을 보냅니다.", "Привет, как дела? Всё хорошо!", "Καλημέρα κόσμε, τι κάνεις;",
    "مرحبا بالعالم، كيف حالك؟", "שלום עולם", "नमस्ते दुनिया, आप कैसे हैं?", "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "Tiếng Việt có nhiều dấu thanh", "ﷺ ﬁ ﬂ № ℡ ™ ½ ² ³", "𝕳𝖊𝖑𝖑𝖔 𝒲𝑜𝓇𝓁𝒹", "İstanbul ıI ẞß ǅ", "ʻokina ʼ ’ ‘ “ ”",
]
EMOJI = ["🙂", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇨🇭", "1️⃣", "☃️", "🫠"]
ODD = [
    "e\u0301", "A\u030a\u0301", "\u200b", "\ufeff", "\u00a0", "\u3000", "\u2028", "\u0085", "\t", "\r\n", "\n\n\n",
    "   ", " \n ", "\u0000", "\u0007", "\u00ad", "\u202e", "\u0300\u0301\u0302", "\ufffd", "\U0010ffff", "▁", "Ġ", "</w>", "##",
]
LOOK_ALIKES = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<s>", "</s>",
    "<bos>", "<eos>", "<pad>", "<unk>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[UNK]", "<start_of_turn>", "<end_of_turn>",
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<|channel|>", "<|message|>", "<|im_start", "im_end|>", "<|", "|>",
    "<｜User｜>", "<｜Assistant｜>", "<0x0A>", "<|begin_of_text|>system", "< |im_end| >", "<|IM_END|>",
]
CODE = [
    "fn main() {\n    let x: Vec<u8> = vec![0; 16];\n    println!(\"{x:?}\");\n}\n",
    "def f(a, b=None, *args, **kw):\n\treturn {k: v for k, v in kw.items() if v is not None}\n",
    "SELECT id, SUM(tokens) FROM usage WHERE day >= '2026-01-01' GROUP BY id HAVING COUNT(*) > 3;\n",
    "<div class=\"a b\" data-x='{\"y\":1}'>&nbsp;</div>\n", "for i in $(seq 1 10); do echo \"$i\" >> /tmp/x.log; done\n",
]


def text(rng, parts):
    """A text of about so many parts."""
    out = []
    for _ in range(parts):
        kind = rng.random()
        if kind < 0.55:
            out.append(" ".join(rng.choices(WORDS, k=rng.randint(1, 12))))
        elif kind < 0.67:
            out.append(rng.choice(SCRIPTS))
        elif kind < 0.73:
            out.append(rng.choice(EMOJI) * rng.randint(1, 3))
        elif kind < 0.81:
            out.append(rng.choice(ODD))
        elif kind < 0.88:
            out.append(rng.choice(LOOK_ALIKES))
        elif kind < 0.94:
            out.append(rng.choice(CODE))
        elif kind < 0.97:
            out.append(json.dumps({"n": rng.random(), "s": rng.choice(SCRIPTS), "a": [1, None, True]}))
        else:
            out.append(rng.choice("a0 \n=-字\u0301") * rng.randint(20, 400))
        out.append(rng.choice(["", " ", " ", "\n", ". ", ", ", "\n\n"]))
    return "".join(out)


def tool(rng, i):
    return {"type": "function", "function": {
        "name": f"{rng.choice(['get_weather', 'searchOrders', 'list-files'])}_{i}",
        "description": text(rng, 2),
        "parameters": {"type": "object", "required": ["q"], "properties": {
            "q": {"type": "string", "description": text(rng, 1)},
            "limit": {"type": "integer", "minimum": 1, "enum": [1, 10, 100]}}}}}


def conversation(rng):
    """A chat request; its messages alternate as templates ask for."""
    messages = []
    tools = [tool(rng, i) for i in range(rng.randint(1, 3))] if rng.random() < 0.3 else None
    if rng.random() < 0.7:
        messages.append({"role": "system", "content": text(rng, rng.randint(1, 12))})
    for turn in range(rng.randint(1, 4)):
        content = text(rng, rng.randint(1, 15))
        if rng.random() < 0.15:
            image = {"type": "image_url", "image_url": {"url": f"https://example.org/{rng.random()}.png"}}
            content = [{"type": "text", "text": content}, image, {"type": "text", "text": text(rng, 2)}]
        messages.append({"role": "user", "content": content})
        if tools and rng.random() < 0.6:
            name = rng.choice(tools)["function"]["name"]
            arguments = json.dumps({"q": text(rng, 1), "limit": turn}, ensure_ascii=False)
            call = {"id": f"call{turn:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": text(rng, 2)})
        messages.append({"role": "assistant", "content": text(rng, rng.randint(1, 10))})
    if messages[-1]["role"] == "assistant" and rng.random() < 0.8:
        messages.append({"role": "user", "content": text(rng, rng.randint(1, 6))})
    request = {"model": "demo", "messages": messages}
    if tools:
        request["tools"] = tools
    return request


def conversations(count, seed=1):
    """So many conversations; a longer list starts with the shorter one."""
    rng = random.Random(seed)
    return [conversation(rng) for _ in range(count)]


def flat(request, markers):
    """The conversation as one text with a model's own markers around its messages: the shape of a
    rendered template, for tokenizers whose template is not at hand."""
    start, end = markers
    out = [f"{start}system\n{json.dumps(request['tools'], ensure_ascii=False)}{end}\n"] if "tools" in request else []
    for message in request["messages"]:
        content = message["content"]
        if isinstance(content, list):
            content = "".join(part.get("text", "<image>") for part in content)
        for call in message.get("tool_calls", []):
            content += json.dumps(call["function"], ensure_ascii=False)
        out.append(f"{start}{message['role']}\n{content}{end}\n")
    return "".join(out) + f"{start}assistant\n"
