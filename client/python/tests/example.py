"""Runs a program that finds its daemon in IPCD_ADDRESS: python3 -m tests.example PROGRAM."""

import os
import runpy
import sys

from .daemon import Daemon

if __name__ == "__main__":
    daemon = Daemon()
    try:
        daemon.start()
        os.environ["IPCD_ADDRESS"] = daemon.address
        runpy.run_path(sys.argv[1], run_name="__main__")
    finally:
        daemon.remove()
