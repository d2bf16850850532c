"""What holds for every test: nothing is fetched from the hub."""

import os

# huggingface_hub reads it once, when it is first imported; so it stands before any test module.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
