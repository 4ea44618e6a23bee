"""Python packages that Debian does not have: importing this module after harness makes those of requirements.txt
importable. They are installed from PyPI into the build directory, once; what they depend on is Debian's."""

import os
import subprocess
import sys
import venv

import harness

REQUIREMENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requirements.txt")
FOLDER = os.path.join(harness.BUILD_DIR, "tests", "integration", "packages")
STAMP = os.path.join(FOLDER, "installed.txt")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def install():
    venv.create(FOLDER, clear=True, with_pip=True)
    pip = [os.path.join(FOLDER, "bin", "python"), "-m", "pip", "--quiet", "install", "--no-deps", "-r", REQUIREMENTS]
    subprocess.run(pip, check=True)
    with open(STAMP, "w", encoding="utf-8") as stamp:
        stamp.write(read(REQUIREMENTS))


if not os.path.exists(STAMP) or read(STAMP) != read(REQUIREMENTS):
    install()
sys.path.append(os.path.join(FOLDER, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "site-packages"))
