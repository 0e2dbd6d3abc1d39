"""The corpus: kept opinions become samples, are split by question, and written in the formats that trainers read."""
