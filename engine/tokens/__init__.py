"""From prompts to token ids with a role and a mask for each, and to the batches in which models see them."""
