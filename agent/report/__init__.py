"""The report: one self-contained HTML file, section by section."""
