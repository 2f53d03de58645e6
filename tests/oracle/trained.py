"""Small tokenizers of every kind, trained here: byte fallback, added tokens, normalizers."""

import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import conversations
import vocab

MARKERS = ("<|im_start|>", "<|im_end|>")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)


def byte_fallback():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer, trainers.BpeTrainer(vocab_size=2500, limit_alphabet=200, special_tokens=["<unk>", *BYTES], show_progress=False)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return tokenizer, trainers.UnigramTrainer(vocab_size=1500, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer, trainers.WordPieceTrainer(vocab_size=2000, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)


def digits():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(" ", behavior="merged_with_next"), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation(behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)


def cases(work):
    rng = random.Random(3)
    corpus = [conversations.text(rng, 30) for _ in range(120)]
    for make in (byte_level, byte_fallback, unigram, word_piece, digits):
        tokenizer, trainer = make()
        tokenizer.train_from_iterator(corpus, trainer)
        tokenizer.add_special_tokens(list(MARKERS) + ["<s>", "</s>"])
        tokenizer.add_tokens([
            AddedToken("<think>", normalized=False, rstrip=True), AddedToken("</think>", normalized=False, lstrip=True),
            AddedToken("Zürich", normalized=True, single_word=True), AddedToken("<tool_call>", normalized=True)])
        # None of this may change a count.
        tokenizer.enable_truncation(64)
        tokenizer.enable_padding(length=300)
        path = work / f"{make.__name__}.json"
        tokenizer.save(str(path))
        # From the file like our side: written as decimals, scores may tie that did not in memory.
        reference = Tokenizer.from_file(str(path))
        # It would add nothing here, but `trim_offsets` moves the end of a token before its trailing
        # spaces: a prefix that ends among them would hold a token that is not whole.
        reference.post_processor = processors.Sequence([])
        yield vocab.Case(f"trained {make.__name__} (tokenizers)", ["json", str(path)], vocab.tokenizers_reference(reference), MARKERS)
