"""The command line of the server: `ft-audit serve`."""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ft_audit.agent.tools.profiles import PROFILES
from ft_audit.errors import ConfigError

if TYPE_CHECKING:
    from ft_audit.agent.tools.auditor import Auditor

CONFIG_VARIABLE, TOKEN_VARIABLE = "FT_AUDIT_CONFIG", "FT_AUDIT_TOKEN"
DEFAULT_PORT = 8765


def add_serve(subparsers: Any) -> None:
    """Add the verb `serve`."""
    serve = subparsers.add_parser("serve", help="the evidence as tools over MCP, for an agent of your choice")
    serve.add_argument(
        "--config",
        metavar="CONFIG",
        help=f"the audit's YAML file; configs:NAME names a shipped one (default: {CONFIG_VARIABLE})",
    )
    serve.add_argument("--diff", metavar="ID", help="this diff of the store, not the config's newest")
    serve.add_argument(
        "--profile", choices=tuple(PROFILES), default="full", help="which tools the agent gets (full)"
    )
    serve.add_argument(
        "--http",
        type=int,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"over HTTP on the loopback interface, not stdio (port {DEFAULT_PORT})",
    )
    serve.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="in the place of what the file says")
    serve.set_defaults(func=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    """Serve until the client goes away, or over HTTP until interrupted."""
    auditor = open_auditor(args.config, args.overrides, args.diff, args.profile)
    import anyio

    from ft_audit.agent.server.protocol import build_server

    server = build_server(auditor)
    if args.http is None:
        from mcp.server.stdio import stdio_server

        async def over_stdio() -> None:
            async with stdio_server() as (reading, writing):
                await server.run(reading, writing, server.create_initialization_options())

        anyio.run(over_stdio)
        return 0
    import uvicorn

    from ft_audit.agent.server.http import HOST, PATH, http_app

    given = os.environ.get(TOKEN_VARIABLE)
    token = given or secrets.token_urlsafe(32)
    # The one place that shows the token: it has just been drawn, and no log will have it.
    shown = f"the token in {TOKEN_VARIABLE}" if given else f"the token {token}"
    print(f"serving http://{HOST}:{args.http}{PATH} for {shown}", file=sys.stderr, flush=True)
    uvicorn.run(http_app(server, token), host=HOST, port=args.http, log_level="warning")
    return 0


def open_auditor(ref: str | None, overrides: Sequence[str], diff: str | None, profile: Any) -> "Auditor":
    """Return the auditor of a config's evidence.

    Raises:
        UserError: there is no config, no evidence of it, or a bank that cannot be read.
    """
    from ft_audit.agent.audit import find_calibration
    from ft_audit.agent.find import find_evidence
    from ft_audit.agent.tools.auditor import Auditor
    from ft_audit.agent.tools.rooms import absent, tools_of
    from ft_audit.engine.config import load_config

    ref = ref or os.environ.get(CONFIG_VARIABLE)
    if not ref:
        raise ConfigError(f"serve what? name the audit's config with --config, or in {CONFIG_VARIABLE}")
    config = load_config(ref, overrides)
    evidence = find_evidence(config, diff).evidence
    calibration = find_calibration(config, evidence)
    _ = evidence.figures  # read while nobody waits, not by the first call
    return Auditor(config, evidence, calibration, tools_of(profile, config), profile, absent(profile))
