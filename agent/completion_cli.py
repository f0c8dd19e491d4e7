"""`gpuvigil completion bash|zsh`: a completion script made by walking the argument parser."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator

from agent.base.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell to write for")
    parser.epilog = 'bash: eval "$(gpuvigil completion bash)"   zsh: eval "$(gpuvigil completion zsh)"'
    parser.set_defaults(run=_print)


def _print(args: argparse.Namespace) -> int:
    from agent.cli import build_parser

    sys.stdout.write(script(build_parser("*"), args.shell))
    return int(Exit.GOOD)


def commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each command path ("agent maintenance") with the words that may follow it."""
    words: list[str] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = list(action.choices.items())
            words += action.choices
        elif action.option_strings:
            words += [option for option in action.option_strings if option.startswith("--") or len(option) == 2]
        elif action.choices is not None:
            words += [str(choice) for choice in action.choices]
    yield path, sorted(set(words))
    for name, child in below:
        yield from commands(child, f"{path} {name}".strip())


def options(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each "command path --option" that takes one of a few values, with those values."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from options(child, f"{path} {name}".strip())
        elif action.choices is not None:
            for option in action.option_strings:
                yield f"{path} {option}".strip(), [str(choice) for choice in action.choices]


def _lookup(name: str, rows: Iterator[tuple[str, list[str]]]) -> str:
    """A shell function that prints the words known for its argument, and fails if there are none."""
    cases = "".join(f"    {shlex.quote(path)}) echo {shlex.quote(' '.join(words))} ;;\n" for path, words in rows)
    return f'{name}() {{\n  case "$1" in\n{cases}    *) return 1 ;;\n  esac\n}}\n'


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script: two look-ups and a function; files are offered where no word is known."""
    lookups = _lookup("_gpuvigil_words", commands(parser)) + _lookup("_gpuvigil_values", options(parser))
    return lookups + _BASH if shell == "bash" else "#compdef gpuvigil\n" + lookups + _ZSH


_BASH = r"""_gpuvigil() {
  local place="" i next found
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="${place:+$place }${COMP_WORDS[i]}"
    _gpuvigil_words "$next" >/dev/null && place="$next"
  done
  COMPREPLY=()
  if found=$(_gpuvigil_values "${place:+$place }$previous"); then
    COMPREPLY=($(compgen -W "$found" -- "$current"))
  elif [[ "$previous" != -* || "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$(_gpuvigil_words "$place")" -- "$current"))
  fi
}
complete -o default -F _gpuvigil gpuvigil
"""

_ZSH = r"""_gpuvigil() {
  local place="" word next found previous="${words[CURRENT-1]}"
  for word in "${words[@]:1:$((CURRENT - 2))}"; do
    next="${place:+$place }$word"
    _gpuvigil_words "$next" >/dev/null && place="$next"
  done
  if found=$(_gpuvigil_values "${place:+$place }$previous"); then
    compadd -- ${=found}
  else
    if [[ "$previous" != -* || "${words[CURRENT]}" == -* ]]; then
      found=$(_gpuvigil_words "$place") && compadd -- ${=found}
    fi
    _files
  fi
}
compdef _gpuvigil gpuvigil
"""
