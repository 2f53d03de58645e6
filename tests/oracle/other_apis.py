"""Conversations as requests of the Messages and the Responses API, and the chat requests that
engines make of those: the rules of `docs/tokens.md`, written down here a second time."""

import json

# Before each further text of the one system message.
NEXT_TEXT = "\n"


def spoken(api, chat):
    """The conversation as a request of that API, and the chat request that an engine makes of it."""
    if api == "messages":
        request = as_messages(chat)
        return request, of_messages(request)
    if api == "responses":
        request = as_responses(chat)
        return request, of_responses(request)
    return chat, chat


def texts_of(content):
    return [content] if isinstance(content, str) else [part["text"] for part in content or [] if "text" in part]


def arguments_of(call):
    try:
        arguments = json.loads(call["function"]["arguments"])
    except ValueError:
        arguments = {}
    return arguments if isinstance(arguments, dict) else {}


# Messages


def as_messages(chat):
    """Results of tools are the user's; the system message is a member of its own."""
    request = {"model": "demo", "max_tokens": 100, "messages": []}
    if "tools" in chat:
        functions = [tool["function"] for tool in chat["tools"]]
        request["tools"] = [
            {"input_schema": function["parameters"], **{name: function[name] for name in ("name", "description") if name in function}}
            for function in functions]
    if "chat_template_kwargs" in chat:
        request["chat_template_kwargs"] = chat["chat_template_kwargs"]
    for message in chat["messages"]:
        content, role = message.get("content"), message["role"]
        if role in ("system", "developer") and not request["messages"]:
            request["system"] = content
            continue
        blocks = [block_of(part) for part in content] if isinstance(content, list) else content
        if role == "tool":
            result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": blocks}
            role, blocks = "user", [result]
        elif role == "assistant" and ("reasoning_content" in message or message.get("tool_calls")):
            blocks = [{"type": "text", "text": text} for text in texts_of(content)]
            if "reasoning_content" in message:
                blocks.insert(0, {"type": "thinking", "thinking": message["reasoning_content"], "signature": "s"})
            for call in message.get("tool_calls", []):
                blocks.append({"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments_of(call)})
        request["messages"].append({"role": role, "content": blocks})
    return request


def block_of(part):
    if part["type"] == "image_url":
        return {"type": "image", "source": {"type": "url", "url": part["image_url"]["url"]}}
    return part


def of_messages(request):
    chat = {name: request[name] for name in ("chat_template_kwargs",) if name in request}
    if "tools" in request:
        chat["tools"] = [
            {"type": "function", "function": {
                **{name: tool[name] for name in ("name", "description") if name in tool}, "parameters": tool["input_schema"]}}
            for tool in request["tools"]]
    chat["messages"] = messages = []
    if request.get("system"):
        messages.append({"role": "system", "content": request["system"]})
    elif request.get("system") == "":
        messages.append({"role": "system", "content": ""})
    for message in request["messages"]:
        if not isinstance(message["content"], list):
            messages.append(message)
            continue
        said = {"role": message["role"]}
        for block in message["content"]:
            if block["type"] == "tool_result":
                content = block["content"]
                content = [chat_part(part) for part in content] if isinstance(content, list) else content
                messages.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": content})
            elif block["type"] == "thinking":
                said["reasoning_content"] = block["thinking"]
            elif block["type"] == "tool_use":
                function = {"name": block["name"], "arguments": json.dumps(block["input"])}
                said.setdefault("tool_calls", []).append({"id": block["id"], "type": "function", "function": function})
            else:
                said.setdefault("content", []).append(chat_part(block))
        if len(said) > 1:
            messages.append(said)
    return chat


def chat_part(part):
    kind = part["type"]
    if kind in ("image", "input_image"):
        return {"type": "image_url", "image_url": {"url": "x"}}
    return {"type": "text", "text": part["text"]}


# Responses


def as_responses(chat):
    """Flat tools, and an item for each thing that a message says."""
    request = {"model": "demo", "store": False, "input": []}
    if "tools" in chat:
        request["tools"] = [{"type": "function", **tool["function"]} for tool in chat["tools"]]
        request["tools"].append({"type": "web_search"})
    if "chat_template_kwargs" in chat:
        request["chat_template_kwargs"] = chat["chat_template_kwargs"]
    if "reasoning_effort" in chat:
        request["reasoning"] = {"effort": chat["reasoning_effort"]}
    items = request["input"]
    for at, message in enumerate(chat["messages"]):
        content, role = message.get("content"), message["role"]
        kind = "output_text" if role == "assistant" else "input_text"
        parts = [item_part(part, kind) for part in content] if isinstance(content, list) else content
        if role == "system" and at == 0 and isinstance(content, str):
            request["instructions"] = content
            items.append({"role": "developer", "content": [{"type": "input_text", "text": "Answer briefly."}]})
        elif role == "tool":
            items.append({"type": "function_call_output", "call_id": message["tool_call_id"], "output": parts})
        elif role == "assistant":
            if "reasoning_content" in message:
                text = message["reasoning_content"]
                where = {"content": [{"type": "reasoning_text", "text": text}], "summary": []}
                if at % 2:
                    where = {"summary": [{"type": "summary_text", "text": text}]}
                items.append({"type": "reasoning", "id": f"rs_{at}", **where})
            if content is not None:
                if at % 3:
                    parts = [{"type": "output_text", "text": content, "annotations": []}]
                items.append({"type": "message", "role": role, "id": f"msg_{at}", "status": "completed", "content": parts})
            for call in message.get("tool_calls", []):
                function = call["function"]
                items.append({"type": "function_call", "call_id": call["id"], "name": function["name"], "arguments": function["arguments"]})
        else:
            items.append({"role": role, "content": parts})
    return request


def item_part(part, kind):
    if part["type"] == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
    return {"type": kind, "text": part["text"]}


def of_responses(request):
    chat = {name: request[name] for name in ("chat_template_kwargs",) if name in request}
    if "reasoning" in request:
        chat["reasoning_effort"] = request["reasoning"]["effort"]
    if "tools" in request:
        functions = [tool for tool in request["tools"] if tool["type"] == "function"]
        chat["tools"] = [
            {"type": "function", "function": {"strict": None, **{name: tool[name] for name in tool if name != "type"}}}
            for tool in functions]
        for tool in chat["tools"]:
            # As they are declared: the others come after these.
            known = {name: tool["function"].get(name) for name in ("name", "description", "parameters", "strict")}
            tool["function"] = {**known, **tool["function"]}
    system, messages = [], []
    if request.get("instructions"):
        system.append({"type": "text", "text": request["instructions"]})
    items = list(request["input"])
    while items and items[0].get("role") in ("system", "developer"):
        content = items.pop(0)["content"]
        parts = [chat_part(part) for part in content] if isinstance(content, list) else [{"type": "text", "text": content}]
        parts = [part for part in parts if part.get("text") != ""]
        if system and parts and "text" in parts[0]:
            parts[0]["text"] = NEXT_TEXT + parts[0]["text"]
        system += parts
    if system:
        messages.append({"role": "system", "content": system})
    for item in items:
        take(item, messages)
    chat["messages"] = messages
    return chat


def take(item, messages):
    """Adds to the assistant's message before it what that has not got yet, else a new message."""
    before = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    kind = item.get("type", "message")
    if kind == "function_call":
        call = {"id": item["call_id"], "type": "function", "function": {"name": item["name"], "arguments": item["arguments"]}}
        if before is None:
            messages.append({"role": "assistant", "tool_calls": [call]})
        else:
            before.setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        output = item["output"]
        content = [chat_part(part) for part in output] if isinstance(output, list) else output
        messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
    elif kind == "reasoning":
        text = (item.get("content") or item["summary"])[0]["text"]
        if text:
            messages.append({"role": "assistant", "reasoning_content": text})
    else:
        content = item["content"]
        content = [chat_part(part) for part in content] if isinstance(content, list) else content
        role = "system" if item["role"] == "developer" else item["role"]
        if role == "assistant" and before is not None and "content" not in before and "tool_calls" not in before:
            before["content"] = content
        else:
            messages.append({"role": role, "content": content})
