"""Makes the pool semivl-gpu of type kubernetes, or brings its job template up to date.

python gpu_pool.py job-template.json     SEMIVL_IMAGE: the image of the jobs, else the template's own
"""

import json
import os
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

POOL = "semivl-gpu"


def main() -> None:
    template = json.loads(Path(sys.argv[1]).read_text())
    image = os.environ.get("SEMIVL_IMAGE")
    if image:
        template["variables"]["properties"]["image"]["default"] = image
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name=POOL, type="kubernetes", base_job_template=template), overwrite=True
        )
    print(f"the pool {POOL} starts jobs of {template['variables']['properties']['image']['default']}")


if __name__ == "__main__":
    main()
