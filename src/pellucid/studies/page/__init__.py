"""What the pages of all studies share: the settings behind a number, and a report as files."""
