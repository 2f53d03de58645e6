"""How an order is spelled in each API: the text to cache, its mark, and what stands around it.

Arguments are those of the API itself, which its clients take as they are. A tool's result is sent
once its call is known: `CALL_ID` stands for that.
"""

TOOL = "look_up"
PARAMETERS = {
    "type": "object",
    "properties": {"animal": {"type": "string"}, "legs": {"type": "integer", "minimum": 4}},
    "required": ["animal", "legs"],
    "additionalProperties": False,
}
RESULT = "It jumps over the lazy dog."


class CacheControl:
    """On parts, tools and messages."""

    name = "`cache_control`"
    ttl_of = "cache_control"
    # What asks for the 1h tier.
    long_ttl = "1h"
    marks_tools = True

    def mark(self, part, ttl):
        ttl = {"ttl": ttl} if ttl else {}
        return {**part, "cache_control": {"type": "ephemeral", **ttl}}

    def options(self, ttl):
        return {}


class Breakpoints:
    """On parts, with `prompt_cache_options` beside them. Tools cannot carry a mark: the text after
    them does."""

    name = "`prompt_cache_breakpoint`"
    ttl_of = "prompt_cache_options"
    # At least that long; the clients' types know no 1h.
    long_ttl = "30m"
    marks_tools = False

    def mark(self, part, ttl):
        return {**part, "prompt_cache_breakpoint": {"mode": "explicit"}}

    def options(self, ttl):
        ttl = {"ttl": ttl} if ttl else {}
        return {"prompt_cache_options": {"mode": "explicit", **ttl}}


class Chat:
    """Chat completions. The marks of tools' results may be in another dialect."""

    def __init__(self, dialect, results=None):
        self.dialect = dialect
        self.results = results or dialect

    def arguments(self, feature, text, question, ttl, image):
        arguments = {"model": "demo", **self.dialect.options(ttl)}
        user = {"role": "user", "content": question}
        prefix = self.dialect.mark({"type": "text", "text": text}, ttl)
        system = {"role": "system", "content": [prefix]}
        if feature == "vision":
            image = {"type": "image_url", "image_url": {"url": image}}
            user = {"role": "user", "content": [image, prefix, {"type": "text", "text": question}]}
            return {**arguments, "messages": [user]}
        if feature != "tools":
            return {**arguments, "messages": [system, user]}
        function = {"name": TOOL, "parameters": PARAMETERS}
        if not self.dialect.marks_tools:
            tools = [{"type": "function", "function": function}]
            return {**arguments, "tools": tools, "messages": [system, user]}
        function = {**function, "description": text}
        tools = [self.dialect.mark({"type": "function", "function": function}, ttl)]
        return {**arguments, "tools": tools, "messages": [user]}

    def result(self, ttl):
        text = self.results.mark({"type": "text", "text": RESULT}, ttl)
        return {"role": "tool", "tool_call_id": "CALL_ID", "content": [text]}


class Responses:
    """The Responses API."""

    def __init__(self, dialect):
        self.dialect = dialect

    def arguments(self, feature, text, question, ttl, image):
        arguments = {"model": "demo", **self.dialect.options(ttl)}
        prefix = self.dialect.mark({"type": "input_text", "text": text}, ttl)
        content = [prefix, {"type": "input_text", "text": question}]
        if feature == "vision":
            content.insert(0, {"type": "input_image", "detail": "auto", "image_url": image})
        if feature == "tools":
            tool = {"type": "function", "name": TOOL, "strict": True, "parameters": PARAMETERS}
            if self.dialect.marks_tools:
                tool = self.dialect.mark({**tool, "description": text}, ttl)
                content = content[1:]
            arguments["tools"] = [tool]
        return {**arguments, "input": [{"role": "user", "content": content}]}

    def result(self, ttl):
        text = self.dialect.mark({"type": "input_text", "text": RESULT}, ttl)
        return {"type": "function_call_output", "call_id": "CALL_ID", "output": [text]}


class Completions:
    """Completions: the prompt is one block, and the only mark is at the top."""

    dialect = CacheControl()

    def arguments(self, feature, text, question, ttl, image):
        return self.dialect.mark({"model": "demo", "prompt": text}, ttl)

    def result(self, ttl):
        return None


class Messages:
    """The Messages API."""

    dialect = CacheControl()

    def arguments(self, feature, text, question, ttl, image):
        arguments = {"model": "demo", "max_tokens": 64}
        prefix = self.dialect.mark({"type": "text", "text": text}, ttl)
        content = [{"type": "text", "text": question}]
        if feature == "tools":
            tool = {"name": TOOL, "description": text, "input_schema": PARAMETERS}
            arguments["tools"] = [self.dialect.mark(tool, ttl)]
        elif feature == "vision":
            head, data = image.removeprefix("data:").split(";base64,")
            source = {"type": "base64", "media_type": head, "data": data}
            content = [{"type": "image", "source": source}, prefix, *content]
        else:
            arguments["system"] = [prefix]
        return {**arguments, "messages": [{"role": "user", "content": content}]}

    def result(self, ttl):
        text = {"type": "text", "text": RESULT}
        result = {"type": "tool_result", "tool_use_id": "CALL_ID", "content": [text]}
        return {"role": "user", "content": [self.dialect.mark(result, ttl)]}
