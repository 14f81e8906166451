"""Load on tensorwire and on gRPC with Locust: ``make bench-locust``, or ``locust -f bench/locustfile.py``.

docs/locust.md tells how to run it.
"""

# Locust runs this file by its path: it knows no relative imports, and the type checker no absolute ones.
# pyright: reportMissingImports=false, reportUnknownVariableType=false

from tensorwire.bench.locust_options import Ramp
from tensorwire.bench.locust_users import GrpcUser, TensorwireUser

__all__ = ["GrpcUser", "Ramp", "TensorwireUser"]
