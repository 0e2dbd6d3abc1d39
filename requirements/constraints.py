"""Prints constraints.txt anew: the versions in requirements/dev.txt, and of what is left out there
those that stood.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = ("torch", "mpmath", "networkx", "sympy")  # torch, and what it alone brings
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)


def pins(path: Path) -> dict[str, str]:
    """Return the versions that a file pins, by name."""
    return {
        name.lower().replace("_", "-"): version for name, version in PIN.findall(path.read_text())
    }


if __name__ == "__main__":
    old = pins(HERE.parent / "constraints.txt")
    found = pins(HERE / "dev.txt") | {name: old[name] for name in LEFT_OUT if name in old}
    print("# The versions CulturePark is tested with: pip install -c constraints.txt …")  # noqa: T201
    print("\n".join(f"{name}=={version}" for name, version in sorted(found.items())))  # noqa: T201
