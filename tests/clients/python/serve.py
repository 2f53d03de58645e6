"""The adapters' side of the pipe: one line of JSON is an order, one line its outcomes.

An adapter says how one client speaks one API: how it is made and called, and where it shows what came
back. What is asked and what must come back is the driver's business (`prompts.py`, `columns.py`), so
it is the same for every client, in Python and in Node (`node/serve.mjs` is this file's twin).
"""

import asyncio
import importlib.metadata
import inspect
import json
import sys

import pydantic


class Fox(pydantic.BaseModel):
    """What structured answers are parsed into."""

    name: str
    legs: int


class Adapter:
    """One client and one API. `client` makes what calls need, `call` makes one, `whole` and
    `streamed` read what came, `with_result` goes on after a tool call."""

    def __init__(self, base):
        self.base = base
        self._clients = {}

    def kept_client(self, order):
        """One client for all orders that are alike, as programs have it."""
        settings = ("key", "async", "usage", "retries", "headers")
        kind = json.dumps([order[setting] for setting in settings])
        if kind not in self._clients:
            self._clients[kind] = self.client(order)
        return self._clients[kind]

    async def ask(self, order, client, arguments):
        """One request; the outcome, and the client's own object of the answer."""
        answer = self.call(order, client, arguments)
        if inspect.isawaitable(answer):
            answer = await answer
        if not order["stream"]:
            return self.whole(answer), answer
        if order["async"]:
            events = [event async for event in answer]
        else:
            events = list(answer)
        return self.streamed(events)

    async def run(self, order):
        client = self.kept_client(order)
        arguments = order["arguments"]
        if order["feature"] == "tools":
            first, answer = await self.ask(order, client, arguments)
            second, _ = await self.ask(order, client, self.with_result(order, answer))
            return [first, second]
        asked = [self.ask(order, client, arguments) for _ in range(order["times"])]
        if len(asked) > 1:
            return [outcome for outcome, _ in await asyncio.gather(*asked)]
        outcome, _ = await asked[0]
        return [outcome]


def at_once(coroutine):
    """Runs what never waits, as the synchronous clients are used: without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a synchronous client waited")


def result_of(order, call_id):
    """The result of a tool, for that call."""
    return json.loads(json.dumps(order["result"]).replace("CALL_ID", call_id))


def outcome(text, usage, call=None, parsed=None, **more):
    """What the driver looks at. `usage` is None, or a dictionary of numbers."""
    return {"text": text, "usage": usage, "call": call, "parsed": parsed, **more}


def refusal(error):
    """An error as the client raises it."""
    types = [kind.__name__ for kind in type(error).__mro__]
    status = getattr(error, "status_code", None)
    return {"error": {"types": types, "status": status, "message": str(error)}}


def serve(adapters):
    """Carries out orders until the driver closes the pipe. `adapters` has one for each API."""
    base = sys.argv[1]
    # Libraries that print must not print into the pipe.
    pipe, sys.stdout = sys.stdout, sys.stderr
    made = {api: adapter(base) for api, adapter in adapters.items()}
    # One for all orders: a client's connections belong to the loop that made them.
    loop = asyncio.new_event_loop()
    versions = {api: importlib.metadata.version(it.package) for api, it in adapters.items()}
    print(json.dumps(versions), file=pipe, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        run = loop.run_until_complete if order["async"] else at_once
        try:
            answer = run(made[order["api"]].run(order))
        except Exception as error:  # noqa: BLE001 an adapter's mistakes are the driver's to show
            answer = [refusal(error)]
        print(json.dumps(answer), file=pipe, flush=True)
