"""Files and folders that training programs number: what a gap in the numbers shows to be missing.

| name | what it tells |
|---|---|
| `model-00001-of-00003.safetensors` of Hugging Face | how many there are |
| `zero_pp_rank_2_mp_rank_00_optim_states.pt` of DeepSpeed | there is one for each pair of ranks |
| `mp_rank_00_001` of Megatron-LM | the same, of tensor, pipeline and expert ranks |

Ranks are counted from the least to the greatest one found: where each node keeps its own ranks, that is no gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Final

_OF: Final = re.compile(r"(.*-)(\d+)-of-(\d+)(\..+)", re.A)
_GRIDS: Final = (
    re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_(?:optim|model)_states\.pt", re.A),
    re.compile(r"mp_rank_(\d+)_(\d+)_(\d+)", re.A),
    re.compile(r"mp_rank_(\d+)_(\d+)", re.A),
    re.compile(r"mp_rank_(\d+)(?:_model_states\.pt)?", re.A),
)


def gap(names: Iterable[str]) -> str | None:
    """The first name that is missing among those of one folder; None if the numbers have no gap."""
    series: dict[tuple[str, int, str], set[int]] = {}
    grids: dict[str, dict[tuple[int, ...], re.Match[str]]] = {}
    for name in names:
        if found := _OF.fullmatch(name):
            series.setdefault((found[1], int(found[3]), found[4]), set()).add(int(found[2]))
        elif found := next((found for grid in _GRIDS if (found := grid.fullmatch(name))), None):
            ranks = found.groups()
            grids.setdefault(_with(found, [""] * len(ranks)), {})[tuple(map(int, ranks))] = found
    for (before, count, after), numbers in sorted(series.items()):
        first = 0 if 0 in numbers else 1
        for number in range(first, first + count):
            if number not in numbers:
                return f"{before}{number:05d}-of-{count:05d}{after}"
    return next((missing for _, grid in sorted(grids.items()) if (missing := _hole(grid))), None)


def _hole(grid: Mapping[tuple[int, ...], re.Match[str]]) -> str | None:
    """The first name missing in a grid of ranks."""
    axes = [(min(axis), max(axis) - min(axis) + 1) for axis in zip(*grid, strict=True)]
    for place in range(min(len(grid) + 1, prod(length for _, length in axes))):  # if any is missing, one of these is
        ranks: list[int] = []
        for start, length in reversed(axes):
            place, at = divmod(place, length)
            ranks.append(start + at)
        if tuple(reversed(ranks)) not in grid:
            shortest = min(grid.values(), key=lambda found: len(found.string))
            widths = [len(group) for group in shortest.groups()]
            return _with(shortest, [f"{rank:0{width}d}" for rank, width in zip(reversed(ranks), widths, strict=True)])
    return None


def _with(found: re.Match[str], groups: Sequence[str]) -> str:
    """The name with other text in the place of its numbers."""
    name = found.string
    for group, text in reversed(list(enumerate(groups, 1))):
        start, end = found.span(group)
        name = name[:start] + text + name[end:]
    return name
