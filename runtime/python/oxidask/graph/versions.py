"""What ``distributed.versions.get_versions()`` says, without importing dask: the scheduler needs it early."""

import os
import platform
import struct
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("dask", "distributed", "msgpack", "cloudpickle", "tornado", "toolz", "numpy", "pandas", "lz4")


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None
    except Exception:
        return None


def get_versions():
    """The same mapping as ``distributed.versions.get_versions()``."""
    uname = platform.uname()
    return {
        "host": {
            "python": ".".join(map(str, sys.version_info)),
            "python-bits": struct.calcsize("P") * 8,
            "OS": uname.system,
            "OS-release": uname.release,
            "machine": uname.machine,
            "processor": uname.processor,
            "byteorder": sys.byteorder,
            "LC_ALL": os.environ.get("LC_ALL", "None"),
            "LANG": os.environ.get("LANG", "None"),
        },
        "packages": {
            "python": ".".join(map(str, sys.version_info)),
            **{package: _version(package) for package in PACKAGES},
        },
    }
