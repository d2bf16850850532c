"""What holds for every test: nothing is fetched from the hub, and Triton's programs run without a GPU too."""

import os

import torch

# huggingface_hub reads it once, when it is first imported; so it stands before any test module.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Triton reads it when it is first imported. Where there is a GPU, the same tests run there natively.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
