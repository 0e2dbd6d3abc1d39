"""Public test doubles: a provider's server with faults on demand (`cp.Server`), and a model that
follows a script (`cp.Scripted`).
"""
