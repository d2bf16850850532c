"""The front door: assembles the rooms' verbs and turns every mistake into one line and exit code 1."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from ft_audit import __version__
from ft_audit.agent import commands as agent_commands
from ft_audit.benchmarks import commands as benchmark_commands
from ft_audit.engine import commands as engine_commands
from ft_audit.errors import UserError
from ft_audit.sae import commands as sae_commands

PROGRAM = "ft-audit"
DESCRIPTION = """\
What did a fine-tune change inside a language model, and how alarming is that?

  ft-audit precompute CONFIG   run the base and the tuned model once and keep the evidence
  ft-audit audit CONFIG        judge the evidence: verdict.json and report.html
"""
EPILOG = """\
exit codes: 0 done (audit: the risk is below the threshold), 10 audit: at or above it,
3 audit: inconclusive or uncalibrated, 1 every error
"""
INTERRUPTED = 130


class UsageError(UserError):
    """A command line that names no verb, or a verb's arguments that do not fit."""


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line is an error like every other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}")


def build_parser() -> Parser:
    """Return the parser with every room's verbs."""
    formatter = argparse.RawDescriptionHelpFormatter
    usage = f"{PROGRAM} [-h] [--version] VERB [ARGUMENTS]"
    parser = Parser(PROGRAM, usage, DESCRIPTION, EPILOG, formatter_class=formatter)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    # argparse lines the verbs' help up with this word, so it is as long as the longest of them.
    verbs = parser.add_subparsers(prog=PROGRAM, metavar="VERB [ARGUMENTS]", required=True)
    labels = engine_commands.add_commands(verbs)
    agent_commands.add_commands(verbs)
    agent_commands.add_label_commands(labels)
    benchmark_commands.add_commands(verbs)
    agent_commands.add_sae_commands(sae_commands.add_commands(verbs))
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; overrides may also stand behind the options."""
    args, rest = build_parser().parse_known_args(argv)
    # argparse fills a list of positionals once: of `audit c.yaml --json audit.top=3` the last word is left.
    late = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest and (rest != late or not hasattr(args, "overrides")):
        raise UsageError(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        args.overrides = [*args.overrides, *late]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 1 for every error, wrong usage included."""
    words = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in words
    try:
        args = parse(words)
        code: int = args.func(args)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fail(type(error).__name__, str(error), as_json)
    except ModuleNotFoundError as error:
        missing = engine_commands.missing_extra(error)
        if missing is not None:
            return _fail(type(missing).__name__, str(missing), as_json)
        traceback.print_exc()
        return _fail("ModuleNotFoundError", str(error), as_json)
    except KeyboardInterrupt:
        _fail("KeyboardInterrupt", "interrupted; what is finished is kept", as_json)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as with `| head`: nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the outermost edge: our own mistake, shown whole
        traceback.print_exc()
        return _fail(type(error).__name__, f"a mistake of ft-audit itself: {error}", as_json)


def _fail(kind: str, message: str, as_json: bool) -> int:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"kind": kind, "message": message}}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
