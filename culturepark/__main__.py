"""`python -m culturepark` is the command."""

from culturepark.cli import main

main()
