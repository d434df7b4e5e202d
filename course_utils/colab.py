"""Installs the course's package on Google Colab, which the first cell of a notebook asks for there and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

OWN = ("jupyter", "ipykernel", "ipywidgets", "nbconvert", "nbformat")  # Colab's own, which its notebooks run on


def install(bundle: str, assignment: str) -> None:
    """Install an unpacked bundle, and make the assignment's folder the working folder, so that `import checks` works.

    Parameters
    ----------
    bundle : str
        The folder that holds the bundle's pyproject.toml.
    assignment : str
        Name of the assignment.
    """
    root = Path(bundle).resolve()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [d for d in project["dependencies"] if not d.startswith(OWN)]
    print(f"Installing {project['name']} {project['version']} on Google Colab, which may take some minutes …")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for arguments in (["--no-deps", str(root)], needed):  # apart, so that pip leaves what Colab itself runs on alone
        done = subprocess.run([*pip, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            what = " ".join(arguments)
            raise RuntimeError(f"pip could not install {what}; run this cell again. pip said:\n{done.stdout[-2000:]}")
    os.chdir(root / "assignments" / assignment)
    sys.path.insert(0, os.getcwd())
    print("Installed. What you write is kept where you save this notebook; the files beside it go when Colab ends.")
