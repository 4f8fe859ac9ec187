"""A maintenance process that kills or stops itself when a named point of a rebuild is reached for the n-th time.

    python -P -m tests.mortal_rebuilder '{"point": "SWAPPING", "after": 1, "notes": "/…/notes", "signal": "SIGKILL"}'

It reads the same environment and is put together by the same function as the one in service.
"""

import json
import sys
from functools import partial

from consumer_query.maintenance_process import run_maintenance
from consumer_query.settings import MaintenanceSettings
from runtime.process import run_to_exit
from tests.mortal_projector import Death, Orders

if __name__ == "__main__":
    death = Death(Orders(**json.loads(sys.argv[1])))
    run_to_exit("query-maintenance", MaintenanceSettings, partial(run_maintenance, watch=death))
