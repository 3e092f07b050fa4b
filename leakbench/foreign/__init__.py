"""Networks of other frameworks: their files, read as what strangers wrote, and their modules."""
