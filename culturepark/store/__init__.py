"""A run's memory: every call, turn, opinion, verdict and sample as it happens, and what is read of
them.

`files` are what lies in the folder, `schema` the tables, `connection` one open database, `writer`
what a run keeps in it; `queries` and `counts` read it. No SQL stands anywhere else.
"""

from culturepark.store.files import DAMAGED, lock_folder, require_database
from culturepark.store.writer import RunStore

__all__ = ["DAMAGED", "RunStore", "lock_folder", "require_database"]
