"""`gpuvigil config`: check, show or describe a configuration file."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from agent.base.config import format_duration, load
from agent.base.errors import Exit, VigilError

KINDS = {
    "agent": "agent.settings:agent_model",
    "web": "agent.base.web.webconfig:WebConfig",
    "central": "alerts.central.settings:Settings",
    "routing": "alerts.routing.settings:RoutingConfig",
}
"""Where the model of each kind of file is: a model, or a function that returns it."""

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    check = verbs.add_parser("check", help="say what is wrong in a file, with its line; exit 2 if anything is")
    check.add_argument("file", metavar="FILE", help="the file to check")
    check.set_defaults(run=_check)

    show = verbs.add_parser("show", help="print the settings in force: file, environment and defaults")
    show.add_argument("--config", dest="file", metavar="FILE", help="the file; without one, the defaults")
    show.add_argument("-o", dest="output", choices=("yaml", "json"), default="yaml", help="form of the answer")
    show.set_defaults(run=_show)

    schema = verbs.add_parser("schema", help="print the JSON Schema of a kind of file, for editors")
    schema.set_defaults(run=_schema)
    for verb in (check, show, schema):
        verb.add_argument(
            "--kind", choices=sorted(KINDS), help="what the file configures (told by its name, else agent)"
        )


def _kind(args: argparse.Namespace) -> str:
    stem = Path(getattr(args, "file", None) or "agent").stem
    return args.kind or (stem if stem in KINDS else "agent")


def _model(kind: str) -> type[BaseModel]:
    module, _, name = KINDS[kind].partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        problem = VigilError(f"{kind} configurations are not known here: {error.name} is not installed")
        problem.code = Exit.USAGE
        raise problem from None
    model: type[BaseModel] = found if isinstance(found, type) else found()
    return model


def _check(args: argparse.Namespace) -> int:
    kind = _kind(args)
    config = load(_model(kind), args.file)
    served = args.file if kind == "web" else getattr(config, "web_config_file", None)
    if served and (kind == "web" or Path(served).exists()):
        _check_web(served)
    elif served:
        print(f"{served}: is not on this machine and was not checked", file=sys.stderr)
    print(f"{args.file}: good", file=sys.stderr)
    return int(Exit.GOOD)


def _check_web(file: str) -> None:
    """Load what the server would load of it: certificates and keys that do not fit are wrong, too.

    Raises:
        ConfigError: something is.
    """
    from agent.base.web.tls import make_context
    from agent.base.web.webconfig import load_web_config

    tls = load_web_config(file).tls_server_config
    if tls is not None:
        make_context(tls)


def _show(args: argparse.Namespace) -> int:
    document = _without_passwords(load(_model(_kind(args)), args.file).model_dump(mode="json"))
    if args.output == "json":
        print(json.dumps(document, indent=2))
    else:
        sys.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return int(Exit.GOOD)


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(_with_unit(_model(_kind(args)).model_json_schema()), indent=2))
    return int(Exit.GOOD)


def _with_unit(schema: Any) -> Any:
    """The same schema with the defaults of durations as a file would spell them."""
    if isinstance(schema, list):
        return [_with_unit(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _with_unit(each) for key, each in schema.items()}
    if found.get("type") == "string" and isinstance(found.get("default"), float):
        found["default"] = format_duration(found["default"])
    return found


def _without_passwords(value: Any) -> Any:
    """The same tree with `user:password@` hidden in every URL."""
    if isinstance(value, dict):
        return {key: _without_passwords(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_passwords(each) for each in value]
    return _PASSWORD.sub("***", value) if isinstance(value, str) else value
