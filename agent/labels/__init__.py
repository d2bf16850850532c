"""What features stand for, and how far to believe it."""
