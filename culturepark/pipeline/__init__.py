"""The stages composed: batches of dialogues until there are enough samples, second tries,
events.
"""
