"""Configuration: YAML checked by pydantic models, every error with file, line and allowed values.

Order of precedence: flag > environment `GPUVIGIL_A__B` > file > default. Unknown keys are refused;
so is any unknown value of a setting that is a closed choice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from agent.base.errors import ConfigError

ENV_PREFIX = "GPUVIGIL_"
ENV_RESERVED = ("GPUVIGIL_SIM_",)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


def parse_duration(text: object) -> float:
    """Seconds from "90s", "1h30m", "250ms"; a bare number is refused, because its unit is a guess.

    Raises:
        ValueError: not a duration with a unit.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and text == 0:
        return 0.0
    if isinstance(text, str):
        found = _DURATION.findall(text.strip())
        if found and "".join(number + unit for number, unit in found) == text.strip():
            return sum(float(number) * _UNITS[unit] for number, unit in found)
    raise ValueError(f"must be a duration with a unit (ms, s, m, h, d, w) such as 15s or 1h30m, got {text!r}")


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back: "1m30s", "0.25s"."""
    if seconds != int(seconds) or seconds < 60:
        return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
    parts, left = [], int(seconds)
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS[unit]))
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts)


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"must be an http or https address such as http://127.0.0.1:9090, got {text!r}")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]
"""Address of a server that speaks HTTP."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|[smhdw]))+$", "examples": ["15s", "1h30m"]}),
]
"""A time span in seconds; in files always with a unit."""


class Model(BaseModel):
    """Base of every settings model: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _all_in_comments(cls, given: object) -> object:
        """A section of which nothing but its name is left has its defaults."""
        return {} if given is None else given


M = TypeVar("M", bound=BaseModel)


class _Lines(yaml.SafeLoader):
    """A safe YAML loader that refuses duplicate keys (the first is silently lost otherwise)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _line_of(node: yaml.Node | None, path: Iterable[object]) -> int | None:
    """The 1-based line at which `path` stands in the document, or of its nearest parent."""
    line: int | None = None
    for step in path:
        if node is None:
            break
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    line, found = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = node.value[step]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The overrides `GPUVIGIL_A__B=value` as a nested mapping; values are read as YAML scalars.

    A name that is no setting is refused later, as an unknown key of a file is.

    Raises:
        ConfigError: a value is not YAML, or one variable names a setting inside another's value.
    """
    found: dict[str, Any] = {}
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name.startswith(ENV_RESERVED):
            continue
        *parents, last = name[len(ENV_PREFIX) :].lower().split("__")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"environment {name}: {parent} is set by another variable already")
        try:
            place[last] = yaml.safe_load(environ[name])
        except yaml.YAMLError as error:
            raise ConfigError(f"environment {name}: not a YAML value ({error})") from None
    return found


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def load(
    model: type[M],
    path: str | Path | None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> M:
    """Read and check a configuration.

    Args:
        model: the pydantic model that the file must match.
        path: YAML file, or None for defaults only.
        overrides: values of command-line flags, nested like the file.
        environ: environment to read `GPUVIGIL_A__B` from (`os.environ` if None).

    Raises:
        ConfigError: every problem, one a line, as `file:line: key.path: what is wrong`.
    """
    text = ""
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not UTF-8 text") from None
    return loads(model, text, name=str(path or "defaults"), overrides=overrides, environ=environ)


def loads(
    model: type[M],
    text: str,
    *,
    name: str = "config",
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> M:
    """As `load`, from text; `name` stands for the file in messages."""
    tree, data = _read(text, name)
    if data is None:  # comments alone, below a "---"
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name}:1: must be a mapping of settings, got {type(data).__name__}")
    from_environment = environment(os.environ if environ is None else environ)
    data = _merge(_merge(data, from_environment), overrides or {})
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = {
            _problem(name, tree, from_environment, e["loc"], e["msg"], e.get("input"), e["type"], model)
            for e in error.errors()
        }
        raise ConfigError("\n".join(text for _, text in sorted(problems))) from None


def _read(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """The YAML document, as nodes with their places and as values.

    Raises:
        ConfigError: it is none, whatever PyYAML makes of that.
    """
    try:
        loader = _Lines(text)
        try:
            tree = loader.get_single_node()
            return tree, loader.construct_document(tree) if tree is not None else {}
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: the character {chr(error.character)!r} is not allowed in YAML") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}:1: {error}") from None
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML's own constructors fall over such things as 2001-99-99, !!int x or endless nesting
        raise ConfigError(f"{name}:1: not YAML that can be read: {error}") from None


def _problem(
    name: str,
    tree: yaml.Node | None,
    env: Mapping[str, Any],
    loc: tuple[int | str, ...],
    msg: str,
    given: object,
    kind: str,
    model: type[BaseModel],
) -> tuple[int, str]:
    """Line (0 if none) and text of one problem."""
    line = _line_of(tree, loc)
    where = f"{name}:{line}" if line else name
    if _contains(env, loc):
        where = "environment " + ENV_PREFIX + "__".join(str(part).upper() for part in loc)
    msg = msg.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        msg = f"unknown key{_allowed(model, loc)}"
    elif kind == "missing":
        msg = "is required"
    elif kind in ("model_type", "dict_type"):
        msg = f"must be a mapping of settings, got {type(given).__name__}"
    elif not isinstance(given, (dict, list)) and "got" not in msg:
        msg = f"{msg[:1].lower()}{msg[1:]}, got {given!r}"
    return line or 0, f"{where}: {'.'.join(str(part) for part in loc)}: {_without_secrets(msg, loc, given)}"


_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|secret|token|(^|_)key$|authorization", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=//)[^/\s'\"@]+@")


def _without_secrets(message: str, loc: tuple[int | str, ...], given: object) -> str:
    """The message fit for a log: no value of a secret's field, no user and password of an address."""
    if loc and _SECRET_NAME.search(str(loc[-1])) and isinstance(given, str):
        message = message.replace(repr(given), "a value that is not shown")
    return _USERINFO.sub("***@", message)


def _contains(env: Mapping[str, Any], loc: tuple[int | str, ...]) -> bool:
    place: Any = env
    for part in loc:
        if not isinstance(place, Mapping) or part not in place:
            return False
        place = place[part]
    return bool(loc)


def _allowed(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """`; allowed: a, b, c`: the keys of the model in which the unknown key stands."""
    here: Any = model
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part) if isinstance(here, type) and issubclass(here, BaseModel) else None
        if field is None:
            return ""
        here = _inner(field.annotation)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return "; allowed: " + ", ".join(sorted(here.model_fields))
    return ""


def _inner(annotation: Any) -> Any:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
