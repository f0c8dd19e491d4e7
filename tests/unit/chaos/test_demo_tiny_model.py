"""The tiny model is a whole GGUF, small, and the same for the same seed."""

from pathlib import Path

import gguf
import pytest

from chaos.demo import tiny_model


def test_is_small_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (tiny_model.write(tmp_path / f"{i}.gguf", seed) for i, seed in enumerate((1, 1, 2)))
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()
    assert 300_000 < first.stat().st_size < 700_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning:gguf")
def test_has_the_parts_of_a_llama(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(tiny_model.write(tmp_path / "m.gguf"))
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["llama.block_count"].contents() == 2
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == len(set(tokens))
    assert {tensor.name for tensor in reader.tensors} >= {"token_embd.weight", "blk.1.ffn_down.weight", "output.weight"}
