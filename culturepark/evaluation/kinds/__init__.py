"""One kind of benchmark a file, each a `KIND`: vsm, survey, opinions, moderation, education,
reward, answers.
"""
