"""What every test may ask for, and how generated examples are chosen.

Invariant: `make check` asks the same of the same code, so that it fails for a change and not for a day. Other examples are looked
for with FW_HYPOTHESIS=search; what is found becomes an example of its own. No example has a deadline, none is too slow: machines
differ.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("check", patient, derandomize=True)
settings.register_profile("search", patient, print_blob=True)
settings.load_profile(os.environ.get("FW_HYPOTHESIS", "check"))

pytest_plugins = ("tests.stack", "tests.platform", "tests.gateway_platform", "tests.rebuilding")
