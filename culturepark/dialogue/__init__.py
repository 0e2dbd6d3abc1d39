"""The park: who meets whom (cast), who speaks next (floor), how a dialogue is held (moderator), all
of them (simulate).
"""
