"""`breakwater demo`: the whole story on one machine, real Triton included."""

from tuning.demo.story import run

__all__ = ["run"]
