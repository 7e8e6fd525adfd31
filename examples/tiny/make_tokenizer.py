#!/usr/bin/env python3
"""Learns a byte-level BPE vocabulary from the demo's own text and writes tokenizer.json, tokenizer_config.json and config.json of the tiny
Llama-shaped model. Standard library only; same bytes every time.

usage: make_tokenizer.py DATA_FOLDER MODEL_FOLDER
"""
import collections
import json
import pathlib
import re
import sys

VOCABULARY = 512
SPECIALS = ["<unk>", "<s>", "</s>"]


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 stays, the rest moves up from U+0100."""
    stay = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, moved = {}, 0
    for byte in range(256):
        if byte in stay:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + moved)
            moved += 1
    return table


def words_of(folder):
    count = collections.Counter()
    for path in sorted(folder.rglob("*.jsonl")):
        for line in open(path, encoding="utf-8"):
            row = json.loads(line)
            text = row["prompt"] + "\n" + row["completion"]
            count.update(re.findall(r" ?[^\W\d_]+| ?\d| ?[^\s\w]+|\s+", text))
    return count


def learn(count, alphabet, size):
    words = {word: [alphabet[b] for b in word.encode()] for word in count}
    merges, tokens = [], sorted(alphabet.values())
    while len(SPECIALS) + len(tokens) < size:
        pairs = collections.Counter()
        for word, pieces in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += count[word]
        if not pairs:
            break
        best = max(pairs.items(), key=lambda item: (item[1], item[0]))[0]
        merges.append(best)
        tokens.append("".join(best))
        for word, pieces in words.items():
            joined, i = [], 0
            while i < len(pieces):
                if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == best:
                    joined.append(pieces[i] + pieces[i + 1])
                    i += 2
                else:
                    joined.append(pieces[i])
                    i += 1
            words[word] = joined
    return tokens, merges


def main():
    data, model = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    model.mkdir(parents=True, exist_ok=True)
    tokens, merges = learn(words_of(data), byte_alphabet(), VOCABULARY)
    vocabulary = {token: i for i, token in enumerate(SPECIALS + tokens)}
    special = lambda i: {"id": i, "content": SPECIALS[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                         "special": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [special(i) for i in range(len(SPECIALS))], "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                    {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
                  "merges": [list(pair) for pair in merges]}}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 4,
              "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": len(vocabulary),
              "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True,
              "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
              "initializer_range": 0.04}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": 256}
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings), ("config.json", config)):
        (model / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
