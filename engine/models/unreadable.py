"""What libraries raise for files that they cannot read."""

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

# Settings of the wrong type or of an impossible value are met wherever they are first used.
UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    OSError,
    RuntimeError,
    MemoryError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)
