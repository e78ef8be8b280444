"""`python -m localhpo`: the command line, where its script is not on the path."""

from localhpo.cli import script

if __name__ == "__main__":
    script()
