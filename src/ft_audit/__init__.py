"""ft-audit: what did a fine-tune change inside a language model, and how alarming is that?"""

__version__ = "0.1.0"
