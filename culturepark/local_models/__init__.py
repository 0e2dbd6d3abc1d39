"""Models on this machine: what there is to run them, bases loaded safely, the offline base, and
what a model would answer.
"""
