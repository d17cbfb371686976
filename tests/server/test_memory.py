"""What an application process does not load, because it would hold it for nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.inference.support import ROOT

pytestmark = pytest.mark.long


def test_the_application_loads_nothing_that_only_a_worker_needs():
    program = (
        "import sys, server.application, server.services\n"
        "print(*{'numpy', 'onnxruntime', 'python_calamine', 'xlsxwriter'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
