"""Prints the folder in which ``shared`` lies."""

from pathlib import Path

if __name__ == "__main__":
    print(Path(__file__).parent)
