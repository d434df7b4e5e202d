"""The engine: builds notebooks, judges submissions in a jail, records marks. It knows no assignment by name."""
