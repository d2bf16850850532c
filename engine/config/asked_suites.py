"""The suites that an investigator may ask for, by their places in the config, and in no other way."""

from ft_audit.engine.config.schema import AuditConfig


def asked_suites(config: AuditConfig) -> dict[str, str]:
    """Return the references of a config's suites by their places in it, such as `elicit.probes`."""
    found = {f"suites.{n}": ref for n, ref in enumerate(config.suites)}
    if config.elicit is not None:
        found["elicit.probes"] = config.elicit.probes
        if config.elicit.guard is not None:
            found["elicit.guard.probes"] = config.elicit.guard.probes
    if config.generate is not None:
        found |= {f"generate.suites.{n}": ref for n, ref in enumerate(config.generate.suites)}
    return found
