"""Write a tiny random language model as GGUF: real weights, real tokenizer, no knowledge.

The demo needs a model that a llama.cpp server loads in a blink and decodes for next to nothing;
what it says does not matter, how long it takes does. The file depends on the seed alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

BYTES = [f"<0x{value:02X}>" for value in range(256)]
WORDS = "the node gpu model token step loss rank time link host rate page drill"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model; the defaults give about half a megabyte in 16-bit floats."""

    layers: int = 2
    width: int = 96
    heads: int = 4
    hidden: int = 192
    context: int = 2048


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and kinds of a byte-level SentencePiece vocabulary with a few whole words.

    Any text can be tokenised, because every byte is a token; the words make streams readable.
    """
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["▁", *letters, *(f"▁{word}" for word in WORDS.split())]
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces]
    kinds = [
        gguf.TokenType.UNKNOWN,
        gguf.TokenType.CONTROL,
        gguf.TokenType.CONTROL,
        *[gguf.TokenType.BYTE] * len(BYTES),
        *[gguf.TokenType.NORMAL] * len(pieces),
    ]
    scores = [0.0] * (3 + len(BYTES)) + [-float(rank) for rank in range(len(pieces))]
    return tokens, scores, [int(kind) for kind in kinds]


def write(path: str | Path, seed: int = 7, shape: Shape | None = None) -> Path:
    """Write the model to `path` (parents are made) and return it; equal seeds give equal bytes."""
    shape = shape or Shape()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    tokens, scores, kinds = vocabulary()

    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_name("gpuvigil-demo")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)

    random = np.random.default_rng(seed)

    def weights(name: str, rows: int, columns: int) -> None:
        values = random.standard_normal((rows, columns)) / np.sqrt(columns)
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.width, dtype=np.float32))

    weights("token_embd", len(tokens), shape.width)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"{block}.{part}", shape.width, shape.width)
        norm(f"{block}.ffn_norm")
        weights(f"{block}.ffn_gate", shape.hidden, shape.width)
        weights(f"{block}.ffn_up", shape.hidden, shape.width)
        weights(f"{block}.ffn_down", shape.width, shape.hidden)
    norm("output_norm")
    weights("output", len(tokens), shape.width)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


if __name__ == "__main__":
    print(write(sys.argv[1]))
