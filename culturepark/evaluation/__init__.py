"""Did it work? Benchmarks as cards, asked of any model, read strictly, told with intervals."""
