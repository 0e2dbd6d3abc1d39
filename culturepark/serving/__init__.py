"""OpenAI's protocol over HTTP on this machine: a server of local models, and what any such server
needs.
"""
