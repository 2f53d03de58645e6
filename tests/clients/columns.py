"""The columns of the table: what every client must see, whichever it is.

Each function asks through a `Cell` and raises where something is wrong. Every cell has a text of its
own to cache, so no cell sees what another wrote.
"""

import base64
import struct
import zlib

import prompts
import stack

AT_ONCE = 20
FOX = {"name": "stand-in", "legs": 0}
CALL = {"name": prompts.TOOL, "arguments": {"animal": "stand-in", "legs": 4}}
SENTENCE = "I am a stand-in; nobody thought."
FLOOR_TOKENS = 1024


class Cell:
    """One client, API and feature."""

    def __init__(self, row, column, agent, running):
        self.row = row
        self.agent = agent
        self.stack = running
        self.prefix = f"{row.name}, {column}: the quick brown fox jumps over the lazy dog. " * 200

    def outcomes(self, feature="text", **order):
        """What the client shows of one order; errors are outcomes, too."""
        prompt = self.row.prompt
        ttl = order.pop("ttl", None)
        question = order.pop("question", "Say hello.")
        image = order.pop("image", None)
        whole_order = {
            "api": self.row.api,
            "key": f"sk-{self.row.name}",
            "feature": feature,
            "arguments": prompt.arguments(feature, self.prefix, question, ttl, image),
            "result": prompt.result(ttl),
            "stream": False,
            "usage": True,
            "async": False,
            "times": 1,
            "headers": {},
            "retries": 0,
        }
        return self.agent.ask({**whole_order, **order})

    def answers(self, feature="text", **order):
        """The same, where there must be no error and numbers that can be."""
        outcomes = self.outcomes(feature, **order)
        for outcome in outcomes:
            assert "error" not in outcome, outcome
            if usage := outcome["usage"]:
                assert 0 <= usage["read"] + usage["written"] <= usage["total"], usage
                assert usage["output"] > 0, usage
        return outcomes

    def answer(self, feature="text", **order):
        (outcome,) = self.answers(feature, **order)
        return outcome

    def written(self, feature="text", **order):
        """Writes the cell's text, which must be new; how many tokens that is."""
        outcome = self.answer(feature, **order)
        assert split(outcome)[0] == 0, outcome
        assert split(outcome)[1] > FLOOR_TOKENS, outcome
        return outcome

    def read(self, written, feature="text", **order):
        """Asks until the text is read: the same number, and nothing written. The commit lands just
        after its response, so a first try may come too early."""

        def ask():
            outcome = self.answer(feature, **order)
            return outcome if split(outcome)[0] else None

        outcome = stack.until("read", ask)
        assert split(outcome) == (split(written)[1], 0), (written, outcome)
        return outcome


def split(outcome):
    return outcome["usage"]["read"], outcome["usage"]["written"]


def whole(cell):
    first = cell.written()
    second = cell.read(first)
    assert first["text"] == second["text"] == SENTENCE, (first, second)


def streamed(cell):
    first = cell.written(stream=True)
    second = cell.read(first, stream=True)
    assert first["text"] == second["text"] == SENTENCE, (first, second)
    # Where usage comes in a chunk of its own a client has to ask for it: one that did not would
    # stumble over a chunk without choices.
    if "bare_chunks" in first:
        assert first["bare_chunks"] == 1, first
        unasked = cell.answer(stream=True, usage=False)
        assert unasked["bare_chunks"] == 0 and unasked["text"] == SENTENCE, unasked


def tools(cell):
    question = f"Use {CALL['name']}."
    for stream in (False, True):
        first, second = cell.answers("tools", question=question, stream=stream)
        assert first["call"] == CALL, first
        assert not second["call"] and second["text"] == SENTENCE, second

    def both_read():
        first, second = cell.answers("tools", question=question)
        return (first, second) if split(second)[1] == 0 else None

    first, second = stack.until("both turns read", both_read)
    assert split(first)[0] > FLOOR_TOKENS and split(first)[1] == 0, first
    # The second turn's mark is behind the call and its result.
    assert split(second)[0] > split(first)[0], (first, second)


def vision(cell):
    red, blue = (png(colour) for colour in (b"\xff\0\0", b"\0\0\xff"))
    cell.read(cell.written("vision", image=red), "vision", image=red)
    # Another image before the same text is another prefix.
    cell.written("vision", image=blue)


def structured(cell):
    first = cell.written("structured")
    second = cell.read(first, "structured")
    assert first["parsed"] == second["parsed"] == FOX, (first, second)


def asynchronous(cell):
    first = cell.written(**{"async": True})
    cell.read(first, **{"async": True})
    streamed = cell.read(first, stream=True, **{"async": True})
    assert first["text"] == streamed["text"] == SENTENCE, (first, streamed)


def concurrent(cell):
    first = cell.written()
    cell.read(first)
    outcomes = cell.answers(times=AT_ONCE, **{"async": True})
    assert len(outcomes) == AT_ONCE
    read = sum(split(outcome)[0] for outcome in outcomes)
    written = sum(split(outcome)[1] for outcome in outcomes)
    assert (read, written) == (AT_ONCE * split(first)[1], 0), outcomes


def retries(cell):
    """The upstream fails twice; the client asks again, and the answer is committed once. Only true
    while nothing else commits."""

    def counted():
        return (
            cell.stack.counted("commit_total", result="ok"),
            cell.stack.counted("commit_vetoed_total", reason="non_2xx"),
        )

    commits, vetoes = counted()
    fail = {"x-stand-in-fail": f"{zlib.crc32(cell.row.name.encode())} 429,503"}
    cell.written(headers=fail, retries=2)
    stack.until("two failures", lambda: counted()[1] == vetoes + 2)
    stack.until("a commit", lambda: counted()[0] > commits)
    # A second commit would land before that of the next text.
    cell.prefix = f"Once more: {cell.prefix}"
    cell.written()
    stack.until("the next commit", lambda: counted()[0] > commits + 1)
    assert counted() == (commits + 2, vetoes + 2), counted()


def refusal(cell):
    (outcome,) = cell.outcomes(ttl="2x")
    error = outcome["error"]
    assert "BadRequestError" in error["types"] and error["status"] == 400, error
    # Some show the body as it came, as JSON.
    message = error["message"].replace("\\", "")
    assert f'invalid {cell.row.prompt.dialect.ttl_of} ttl: "2x"' in message, error


def usage(cell):
    """The client's own fields, by tier where it has them, and a total that caching does not change."""
    ttl = cell.row.prompt.dialect.long_ttl
    first = cell.written(ttl=ttl)
    second = cell.read(first, ttl=ttl)
    assert first["usage"]["total"] == second["usage"]["total"], (first, second)
    if "written_1h" in first["usage"]:
        assert first["usage"]["written_1h"] == first["usage"]["written"], first
        assert second["usage"]["written_1h"] == 0, second


def png(colour):
    """A red, green, blue square of 8 × 8 as a data URL."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + colour * 8) * 8)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(image).decode()


COLUMNS = {
    "whole": whole,
    "streamed": streamed,
    "tools": tools,
    "vision": vision,
    "structured": structured,
    "async": asynchronous,
    "concurrent": concurrent,
    "retries": retries,
    "refusal": refusal,
    "usage": usage,
}
