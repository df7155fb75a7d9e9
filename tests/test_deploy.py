"""What lies in deploy/: of the form that Ray, Kubernetes and bash want."""

import json
import subprocess
from importlib import metadata, util
from pathlib import Path

import jsonschema
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"


def test_the_machines_of_ray_up_are_as_rays_schema_wants_them() -> None:
    spec = util.find_spec("ray")
    assert spec
    assert spec.origin
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((DEPLOY / "ray-up.yaml").read_text()), schema)


def test_the_job_for_kubernetes_runs_the_program_on_the_ray_that_is_installed() -> None:
    job = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == metadata.version("ray")
    assert "python -m kmemexp" in job["spec"]["entrypoint"]
    assert "cluster=auto" in job["spec"]["entrypoint"]
    assert {"headGroupSpec", "workerGroupSpecs"} <= set(job["spec"]["rayClusterSpec"])


def test_the_script_for_slurm_is_sound() -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sh")], check=True)
