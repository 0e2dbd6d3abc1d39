"""Dialogues: who meets whom (casting), who speaks and who hears it (topology), what they are sent
(prompting), when it is over (stopping), the loop (runner), and all of a run's (simulate).
"""
