"""`gpuvigil chaos sim`: start a simulated node, and set and lift its faults."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from agent.base.errors import ConfigError, Exit
from chaos.simulator import records
from chaos.simulator.build import build
from chaos.simulator.kinds import KINDS
from chaos.simulator.profiles import PROFILES
from chaos.simulator.world import OVERLAY_VARIABLE, REAL_VARIABLE, STATE_VARIABLE, World

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """Seconds of "30s", "500ms", "2m", "1.5h" or a bare number of seconds."""
    number, unit = text, "s"
    for suffix in sorted(_UNITS, key=len, reverse=True):
        if text.endswith(suffix):
            number, unit = text[: -len(suffix)], suffix
            break
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30s, 2m or 500ms") from None


class _MixedParser(argparse.ArgumentParser):
    """Takes `set xid --gpu 3 code=79`: words before and after options, which argparse by itself does not."""

    _mixing = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sim` and its own verbs."""
    sim = verbs.add_parser("sim", help="the GPU simulator", description="The GPU simulator: all it shows is simulated.")
    commands = sim.add_subparsers(dest="sim_verb", metavar="VERB", required=True, parser_class=_MixedParser)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")

    def with_state(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--state", metavar="FILE", help=f"state file (default: ${STATE_VARIABLE})")

    for name, summary in (
        ("build", "build the library and print its directory"),
        ("path", "print the built library's directory, for LD_LIBRARY_PATH"),
    ):
        where = add(name, summary)
        where.add_argument("--real", type=Path, metavar="FILE", help="the overlay over this real libnvidia-ml.so.1")
        where.set_defaults(run=_path)

    start = add("start", "create a simulated node")
    with_state(start)
    start.add_argument("--profile", choices=PROFILES, default="h100", help="GPU model (default: h100)")
    start.add_argument("--gpus", type=int, default=8, metavar="N", help="1 to 16 (default: 8)")
    start.add_argument("--workload", choices=records.WORKLOADS, default="training", help="default: training")
    start.add_argument("--seed", type=int, default=1, metavar="N", help="decides all values (default: 1)")
    start.add_argument("--speed", type=float, default=1.0, metavar="X", help="simulated seconds per second; 0 freezes")
    start.add_argument("--replace", action="store_true", help="end the world that stands there")
    start.set_defaults(run=_start)

    overlay = add("overlay", "create a world of faults to lay over real GPUs")
    overlay.add_argument("--real", type=Path, required=True, metavar="FILE", help="the real libnvidia-ml.so.1")
    overlay.add_argument("--state", required=True, metavar="FILE", help=f"state file, for ${OVERLAY_VARIABLE}")
    overlay.add_argument("--replace", action="store_true", help="end the world that stands there")
    overlay.set_defaults(run=_overlay)

    clock = add("clock", "freeze, speed up or step the simulated clock; print its time (Unix seconds)")
    with_state(clock)
    clock.add_argument("--speed", type=float, metavar="X", help="simulated seconds per second; 0 freezes")
    clock.add_argument("--step", type=duration, default=0.0, metavar="TIME", help="move it forward by (1h)")
    clock.set_defaults(run=_clock)

    fault = add("set", "set a fault and print its id")
    with_state(fault)
    fault.add_argument("kind", choices=KINDS, metavar="KIND", help="see `gpuvigil chaos sim kinds`")
    fault.add_argument("--gpu", metavar="N", help="number, UUID, or all")
    fault.add_argument("--at", type=duration, default=0.0, metavar="TIME", help="begin so long from now (2s)")
    fault.add_argument("--for", dest="length", type=duration, metavar="TIME", help="end by itself after (30s)")
    fault.add_argument("parameters", nargs="*", metavar="KEY=VALUE", help="of the kind; xid also takes kmsg=FILE")
    fault.set_defaults(run=_set)

    clear = add("clear", "lift a fault, or all")
    with_state(clear)
    clear.add_argument("id", nargs="?", type=int, metavar="ID")
    clear.set_defaults(run=_clear)

    for name, summary, run in (
        ("list", "list the faults that act or will", _list),
        ("kinds", "list the kinds of fault and their parameters", _kinds),
    ):
        parser = add(name, summary)
        if name == "list":
            with_state(parser)
        parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
        parser.set_defaults(run=run)


def _path(args: argparse.Namespace) -> int:
    print(build("overlay", real=args.real) if args.real else build())
    return Exit.GOOD


def _start(args: argparse.Namespace) -> int:
    with World.create(
        args.state,
        profile=args.profile,
        gpus=args.gpus,
        workload=args.workload,
        seed=args.seed,
        speed=args.speed,
        replace=args.replace,
    ) as world:
        print(
            f"SIMULATED: {args.gpus} x {PROFILES[args.profile].name}, {args.workload}. "
            "No value read from this node is real.\n"
            f"Run what shall see it with LD_LIBRARY_PATH=$(gpuvigil chaos sim path) {STATE_VARIABLE}={world.path}",
            file=sys.stderr,
        )
        print(world.path)
    return Exit.GOOD


def _clock(args: argparse.Namespace) -> int:
    with World.open(args.state) as world:
        if args.speed is not None:
            world.set_clock(args.speed, args.step)
        elif args.step:
            world.step(args.step)
        print(f"{world.now():.3f}")
    return Exit.GOOD


def _overlay(args: argparse.Namespace) -> int:
    folder = build("overlay", real=args.real)
    with World.create_overlay(args.state, args.real, replace=args.replace) as world:
        print(
            f"OVERLAY over {len(world.gpus)} real GPUs: what faults it is given is not real.\n"
            f"Run what shall see it with LD_LIBRARY_PATH={folder} "
            f"{REAL_VARIABLE}={args.real} {OVERLAY_VARIABLE}={world.path}",
            file=sys.stderr,
        )
        print(world.path)
    return Exit.GOOD


def _targets(world: World, gpu: str | None) -> list[int | None]:
    if gpu is None:
        return [None]
    if gpu == "all":
        return [entry.index for entry in world.gpus]
    for entry in world.gpus:
        if gpu in (str(entry.index), entry.uuid):
            return [entry.index]
    raise ConfigError(f"--gpu {gpu}: no such GPU; this world has 0 to {len(world.gpus) - 1}")


def _set(args: argparse.Namespace) -> int:
    parameters: dict[str, str] = {}
    for text in args.parameters:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"{text!r}: a parameter is KEY=VALUE")
        parameters[key] = value
    kmsg = parameters.pop("kmsg", None)
    with World.open(args.state) as world:
        for gpu in _targets(world, args.gpu):
            print(world.set(args.kind, gpu, at=args.at, duration=args.length, kmsg=kmsg, **parameters))
    return Exit.GOOD


def _clear(args: argparse.Namespace) -> int:
    with World.open(args.state) as world:
        lifted = world.clear(args.id)
    if args.id is not None and not lifted:
        raise ConfigError(f"no fault {args.id} is set; see `gpuvigil chaos sim list`")
    print(f"lifted {lifted}", file=sys.stderr)
    return Exit.GOOD


def _list(args: argparse.Namespace) -> int:
    with World.open(args.state) as world:
        faults = world.faults()
        uuids = [gpu.uuid for gpu in world.gpus]
    if args.output == "json":
        rows = [asdict(fault) | {"uuid": uuids[fault.gpu] if fault.gpu is not None else None} for fault in faults]
        print(json.dumps(rows, indent=2))
        return Exit.GOOD
    for fault in faults:
        place = "node" if fault.gpu is None else f"gpu {fault.gpu}"
        state = "active" if fault.active else f"in {fault.begins_in:.1f} s"
        end = "until cleared" if fault.expires_in is None else f"ends in {fault.expires_in:.1f} s"
        values = " ".join(f"{key}={value}" for key, value in fault.parameters.items())
        print(f"{fault.id:>4}  {fault.kind:<18} {place:<7} {state:<10} {end:<18} {values}".rstrip())
    return Exit.GOOD


def _kinds(args: argparse.Namespace) -> int:
    if args.output == "json":
        rows = [
            {
                "kind": name,
                "scope": kind.scope,
                "help": kind.help,
                "overlay": kind.overlay,
                "parameters": [
                    {"name": entry.name, "default": entry.default, "help": entry.help} for entry in kind.parameters
                ],
            }
            for name, kind in KINDS.items()
        ]
        print(json.dumps(rows, indent=2))
        return Exit.GOOD
    for name, kind in KINDS.items():
        print(f"{name:<18} {kind.scope:<5} {kind.help}")
        for entry in kind.parameters:
            print(f"    {entry.name}={entry.default}  {entry.help}")
    return Exit.GOOD
