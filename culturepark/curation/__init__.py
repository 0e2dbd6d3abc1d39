"""The refinery: extract opinions, sieve, verify, rewrite and thin them out; nothing rejected is
lost.

dialogue ── extract ── sieves ── verify ⇄ rewrite ── redundancy ── voice ── settle ──▶ kept opinions
"""
