from .skill import importance

__all__ = ["importance"]
