"""Where the tools are, in the order in which an investigator would meet them."""

from ft_audit.agent.tools import behavior, data, features, logits, overview, sessions, weights

ROOMS = (sessions, overview, data, behavior, logits, features, weights)
