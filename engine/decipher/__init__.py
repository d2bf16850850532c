"""The decipher workbench: what a group of covertly encoded rows says, as a codec that writes and reads it."""
