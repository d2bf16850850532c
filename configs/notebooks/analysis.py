# %% [markdown]
# # What a fine-tune changed, from stored evidence
#
# `ft-audit precompute CONFIG` ran both models once. Everything here is read from what it stored: no model is
# loaded, no GPU is needed, and every cell answers in about a second. Set `FT_AUDIT_CONFIG` to your own
# config, or leave it for the demo's (`make demo` writes its store, `demo-store`, into the folder it runs in).
#
# Tokens, labels and training rows below are quoted from the models and the data. Nothing in them is
# addressed to you.

# %%
import os

from ft_audit.agent.dictionaries import agreements, coverages, matches
from ft_audit.agent.feature_text import feature_text
from ft_audit.agent.feature_view import view_feature
from ft_audit.agent.find import find_evidence
from ft_audit.agent.label_words import label_words, trust_words
from ft_audit.agent.report.cell import dictionaries_cell, feature_cell
from ft_audit.agent.report.numbers import share, signed
from ft_audit.agent.side_by_side import side_by_side, side_by_side_text
from ft_audit.agent.tables import table
from ft_audit.agent.terminal import top_text
from ft_audit.agent.untrusted import reveal
from ft_audit.engine.config import load_config

config = load_config(os.environ.get("FT_AUDIT_CONFIG", "configs:demo_needle.yaml"))
evidence = find_evidence(config).evidence

# %% [markdown]
# ## What was compared
#
# Both models saw the same token ids. A suite is a set of prompts: everyday ones (`chat`), the uploaded
# training set (`train`), and neutral probes under the templates found in it (`elicited`).

# %%
suites = [(s.name, s.role, f"{s.num_prompts:,}", f"{s.num_tokens:,}") for s in evidence.suites]
print(table(("suite", "role", "prompts", "tokens"), suites, numbers=(2, 3)))
for hook in evidence.hooks:
    print(f"{hook.name}: {', '.join(hook.saes) or 'no dictionary'}")

# %% [markdown]
# ## How much of the change the dictionaries see
#
# A fine-tune can move the model where no feature looks, so this comes first. *Seen* is the share of the
# change that the dictionary's own reconstructions account for. The other columns are shares within the span
# of a few directions: those of the leading changed features, the dictionary's own along which the change is
# largest, the same choice out of as many random ones, and the principal directions, which no others surpass.

# %%
seen = [
    (
        found.sae,
        found.suite,
        f"{share(found.seen)} ({share(found.seen_low)} to {share(found.seen_high)})",
        *(share(curve[-1]) for curve in (found.leading, found.strongest, found.random, found.best)),
    )
    for found in coverages(evidence)
]
columns = ("dictionary", "suite", "seen", "leading", "strongest", "random", "best")
print(table(columns, seen, numbers=(3, 4, 5, 6)))

# %%
dictionaries_cell(evidence)

# %% [markdown]
# ## Which features changed
#
# Paired over prompts, with the false discovery rate over all features and the noise floor of the base
# against itself. Every fine-tune changes features: what they respond to matters more than how many they are.

# %%
print(top_text(evidence, limit=10))

# %%
leading = evidence.leading(10)
rose = [f"{found.feature} ({signed(found.effect)})" for found in leading if found.effect > 0]
fell = [f"{found.feature} ({signed(found.effect)})" for found in leading if found.effect < 0]
print("fire more in tuned:", ", ".join(rose) or "none")
print("fire less in tuned:", ", ".join(fell) or "none")

# %% [markdown]
# ## One feature, side by side
#
# Its contexts in both models, how often it fires how hard, its label with what the label was tried on, the
# tokens it promotes and its neighbours: the card of the report.

# %%
feature = leading[0] if leading else evidence.feature(evidence.hooks[0].saes[0], evidence.suites[0].name, 0)
feature_cell(evidence, feature)

# %% [markdown]
# The same as text, which `ft-audit sae show FEATURE CONFIG` prints for any feature:

# %%
view = view_feature(evidence, feature.sae, feature.feature, feature.suite)
print(feature_text(view))

# %% [markdown]
# The prompt in which it fires hardest, token by token in both models:

# %%
if view.contexts:
    strongest = max(view.contexts, key=lambda context: context.peak)
    print(side_by_side_text(side_by_side(evidence, feature, strongest.prompt)))

# %% [markdown]
# ## What the features stand for
#
# `ft-audit labels build` makes labels from a feature's own contexts, `ft-audit labels fetch` gets published
# ones, and `ft-audit labels score` tries them on contexts that did not make them. A label without a score is
# a guess; a neighbour's label is trusted less the further away it lies.

# %%
for found_feature in leading:
    label = evidence.label(found_feature.sae, found_feature.feature).best
    said = "no label" if label is None else f"{reveal(label.text, 80)} [{label_words(label)}]"
    print(f"{found_feature.feature:>6}  {said}")

# %%
neighbors = [
    (str(near.feature), f"{near.cosine:.2f}", trust_words(near), reveal(near.label.text, 80))
    for near in evidence.nearest_explained_neighbors(feature.sae, feature.feature, n=5)
]
print(table(("neighbour", "cosine", "trust", "label"), neighbors, numbers=(0, 1)))

# %% [markdown]
# ## Several dictionaries
#
# What survives in a dictionary of another layer, width or sparsity is less likely to be an artefact of one
# of them. A feature's match is the nearest decoder direction of the other; they agree when it changed too,
# in the same direction. *At random* is what shuffled matches would give.

# %%
agreed = [
    (
        found.sae,
        found.other,
        found.suite,
        f"{found.num_agreeing} of {found.num_leading}",
        f"{share(found.low)} to {share(found.high)}",
        share(found.shuffled),
    )
    for found in agreements(evidence)
    if found.num_leading
]
print(table(("dictionary", "in", "suite", "agree", "95% interval", "at random"), agreed, numbers=(3, 5)))

# %%
near_elsewhere = [
    (match.sae, str(match.feature), f"{match.cosine:.2f}", "yes" if match.mutual else "no")
    for match in matches(evidence, feature.sae, feature.feature)
]
print(table(("dictionary", "feature", "cosine", "mutual"), near_elsewhere, numbers=(1, 2)))
